#include "cmd.h"

#include <stdio.h>

int cmd_fail(const struct error *error)
{
	fflush(stdout);
	fprintf(stderr, "yester: %s\n", error->message);
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
