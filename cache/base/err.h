/* err: how a failure travels from the place where it happened to the person who reads about it.
 *
 * Functions return 0 or a negative `enum err`. Where a person will read the message, the last
 * argument is a `struct error *` that receives the same code, the errno behind it (0 when none) and
 * a message of the form "what: why" or "what: why; what to do". It may be NULL: the caller then only wants
 * the code. Only fs/reply.c turns a code into an errno for the kernel. */
#ifndef YESTER_ERR_H
#define YESTER_ERR_H

enum err {
	ERR_OK = 0,
	ERR_FAILED = -1,      /* it did not work; sys_errno may say why */
	ERR_ABSENT = -2,      /* there is no such thing (file, object, row, version) */
	ERR_EXISTS = -3,      /* it is there already (create-if-absent lost) */
	ERR_CORRUPT = -4,     /* it is there, and it is not what it must be */
	ERR_KEY = -5,         /* wrong passphrase, key file or recovery key */
	ERR_RETRY = -6,       /* the store did not answer properly; trying again may help */
	ERR_DENIED = -7,      /* credentials or permissions; trying again does not help by itself */
	ERR_FENCED = -8,      /* another writer owns the log */
	ERR_NOSPACE = -9,     /* no space on a local filesystem */
	ERR_NOMEM = -10,
	ERR_TIMEOUT = -11,
	ERR_UNSUPPORTED = -12,
	ERR_BUSY = -13,       /* locked or in use by someone else */
	ERR_USAGE = -14,      /* a person's input is wrong */
	ERR_ABANDONED = -15,  /* the cut was abandoned (I6): its set is dirty again */
};

struct error {
	int code;          /* enum err */
	int sys_errno;     /* errno behind it, 0 when none */
	char message[640]; /* one line, no trailing newline, never a secret */
};

/* Fills *error (may be NULL) and returns `code`, so that a function can `return error_set(...)`.
 * Saves the caller's errno. Control characters and bytes that are no UTF-8 (from a file name) are escaped as \xNN.
 * The arguments may point into *error, so that a message can be wrapped in another. Thread-safe. */
int error_set(struct error *error, int code, int sys_errno, const char *format, ...)
	__attribute__((format(printf, 4, 5)));

/* The same, with ": strerror(sys_errno)" appended (never cut off) and `code` chosen from sys_errno (ENOENT: ERR_ABSENT,
 * EEXIST: ERR_EXISTS, ENOSPC/EDQUOT: ERR_NOSPACE, ENOMEM: ERR_NOMEM, EACCES/EPERM: ERR_DENIED, EBUSY/EAGAIN:
 * ERR_BUSY, else ERR_FAILED). */
int error_errno(struct error *error, int sys_errno, const char *format, ...) __attribute__((format(printf, 3, 4)));

/* The code that error_errno would choose. */
int error_code_of_errno(int sys_errno);

/* A short constant word for a code ("absent", "corrupt", ...), for logs and the control protocol. */
const char *error_word(int code);

#endif
