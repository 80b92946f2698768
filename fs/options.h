/* options: the words behind a verb. Long options take their value in the next word or behind `=`, short ones in the next word or at once; options and
 * operands may stand in any order; `--` ends the options; a lone `-` is an operand. Nothing may be given twice. Not thread-safe, keeps nothing. */
#ifndef YESTER_OPTIONS_H
#define YESTER_OPTIONS_H

#include "err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* What an option is for shows by which pointers are set: `flag` alone: it takes no value; `text` alone: it needs one; both: it may have one,
 * only behind `=`. Values point into argv and are left as they were when the option is not given. */
struct option_spec {
	const char *name;  /* without dashes */
	char letter;       /* short form; 0: none */
	bool *flag;
	const char **text;
};

/* argv[0] is the verb, for messages. Operands go to operands[0..*count), `least` to `most` of them; `names` says what they are ("DIR REMOTE"). ERR_USAGE names
 * the word, the nearest option, and what to do. Unused operands are NULL. */
int options_parse(int argc, char **argv, const struct option_spec *specs, size_t spec_count, const char **operands,
		  size_t least, size_t most, const char *names, struct error *error);

/* Time as `--timeout` takes it: 90s, 5m, 2h, 1d, a number of seconds, or 0. ERR_USAGE. `what`: the option, for the message. */
int options_duration(const char *what, const char *text, int64_t *ns, struct error *error);

#endif
