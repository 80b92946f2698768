/* patience: for how long the store has kept this process waiting, for whoever shows progress to a person. One for the process: of several stores it tells about the one that was
 * called last. A call waits while nothing at all arrives or is taken: one that is answered slowly is work. Any thread, never blocks. */
#ifndef YESTER_PATIENCE_H
#define YESTER_PATIENCE_H

#include <stdbool.h>
#include <stdint.h>

struct patience {
	int64_t waited_ns;
	char whom[256]; /* the store, as in its url */
	char why[256];  /* why the last attempt failed; "": it is the first one */
};

/* Around each call of a store, also of several at a time. `whom` is copied. */
void patience_begin(const char *whom);
void patience_end(void);
/* Bytes have come or gone. */
void patience_heard(void);
/* An attempt of a call failed, and there will be another. */
void patience_failed(const char *why);
/* False: nobody waits. */
bool patience_look(int64_t now_ns, struct patience *out);

#endif
