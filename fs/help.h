/* help: what `yester --help` and `yester VERB --help` say. */
#ifndef YESTER_HELP_H
#define YESTER_HELP_H

#include <stdio.h>

/* The overview. */
void help_all(FILE *stream);
/* One verb; NULL name or an unknown one: nothing is printed and -1 returned. */
int help_verb(FILE *stream, const char *verb);

#endif
