#include "cmd.h"

#include "interrupt.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

int cmd_fail(const struct error *error)
{
	/* The store did not answer: the layer that says so does not know for whom. */
	bool advise = error->code == ERR_RETRY && !strchr(error->message, ';');

	fflush(stdout);
	fprintf(stderr, "yester: %s%s\n", error->message, advise ? "; check the network and the remote's address, then try again" : "");
	/* As a shell reports a program that the signal ended. */
	if (error->code == ERR_FAILED && error->sys_errno == EINTR && interrupt_signal())
		return 128 + interrupt_signal();
	switch (error->code) {
	case ERR_USAGE:
		return 2;
	case ERR_KEY:
		return 3;
	case ERR_TIMEOUT:
		return 4;
	case ERR_CORRUPT:
		return 5;
	case ERR_FENCED:
		return 6;
	default:
		return 1;
	}
}
