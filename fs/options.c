#include "options.h"

#include "clock.h"
#include "config.h"
#include "nearest.h"

#include <stdint.h>
#include <stdio.h>
#include <string.h>

#define SPECS_MOST 32

struct parse {
	int argc, at; /* at: the next word */
	char **argv;
	const struct option_spec *specs;
	size_t count;
	bool seen[SPECS_MOST];
	struct error *error;
};

static int unknown(struct parse *parse, const char *word, const char *name)
{
	const char *verb = parse->argv[0], *nearest = NULL;
	size_t least = SIZE_MAX;

	for (size_t i = 0; i < parse->count; i++) {
		size_t d = edit_distance(name, parse->specs[i].name);

		if (d < least) {
			least = d;
			nearest = parse->specs[i].name;
		}
	}
	/* Farther than half of the word it is another word. */
	if (nearest && least <= (strlen(nearest) + 1) / 2)
		return error_set(parse->error, ERR_USAGE, 0, "%s %s: there is no such option; the nearest is --%s", verb, word, nearest);
	return error_set(parse->error, ERR_USAGE, 0, "%s %s: there is no such option; see yester %s --help", verb, word, verb);
}

/* `value`: what stood behind the option in the same word, or NULL. */
static int take(struct parse *parse, size_t index, const char *shown, const char *value)
{
	const struct option_spec *spec = &parse->specs[index];
	const char *verb = parse->argv[0];

	if (parse->seen[index])
		return error_set(parse->error, ERR_USAGE, 0, "%s %s: given twice; give it once", verb, shown);
	parse->seen[index] = true;
	if (!spec->text && value)
		return error_set(parse->error, ERR_USAGE, 0, "%s %s=%s: it takes no value; leave out =%s", verb, shown, value, value);
	if (spec->text && !spec->flag && !value) {
		if (parse->at == parse->argc)
			return error_set(parse->error, ERR_USAGE, 0, "%s %s: its value is missing; see yester %s --help", verb, shown, verb);
		value = parse->argv[parse->at++];
	}
	if (spec->text && value)
		*spec->text = value;
	if (spec->flag)
		*spec->flag = true;
	return 0;
}

static int take_long(struct parse *parse, const char *word)
{
	size_t length = strcspn(word + 2, "=");
	const char *value = word[2 + length] ? word + 2 + length + 1 : NULL;
	char name[64], shown[72];

	if (length >= sizeof name)
		return unknown(parse, word, word + 2);
	memcpy(name, word + 2, length);
	name[length] = '\0';
	snprintf(shown, sizeof shown, "--%s", name);
	for (size_t i = 0; i < parse->count; i++)
		if (strcmp(name, parse->specs[i].name) == 0)
			return take(parse, i, shown, value);
	return unknown(parse, shown, name);
}

static int take_short(struct parse *parse, const char *word)
{
	char shown[3] = { '-', word[1], '\0' };

	for (size_t i = 0; i < parse->count; i++)
		if (word[1] == parse->specs[i].letter)
			return take(parse, i, shown, word[2] ? word + 2 : NULL);
	return unknown(parse, word, word + 1);
}

int options_parse(int argc, char **argv, const struct option_spec *specs, size_t spec_count, const char **operands,
		  size_t least, size_t most, const char *names, struct error *error)
{
	struct parse parse = { .argc = argc, .at = 1, .argv = argv, .specs = specs, .count = spec_count, .error = error };
	bool options_end = false;
	size_t count = 0;
	int rc = 0;

	if (spec_count > SPECS_MOST)
		return error_set(error, ERR_FAILED, 0, "%s: too many options", argv[0]);
	for (size_t i = 0; i < most; i++)
		operands[i] = NULL;
	while (rc == 0 && parse.at < argc) {
		const char *word = argv[parse.at++];

		if (!options_end && strcmp(word, "--") == 0)
			options_end = true;
		else if (!options_end && word[0] == '-' && word[1] == '-')
			rc = take_long(&parse, word);
		else if (!options_end && word[0] == '-' && word[1])
			rc = take_short(&parse, word);
		else if (count == most)
			rc = error_set(error, ERR_USAGE, 0, "%s %s: one word too many; see yester %s --help", argv[0], word, argv[0]);
		else if (word[0] == '\0')
			rc = error_set(error, ERR_USAGE, 0, "%s: a word is empty; it wants %s", argv[0], names);
		else
			operands[count++] = word;
	}
	if (rc == 0 && count < least)
		rc = error_set(error, ERR_USAGE, 0, "%s: too few words: it wants %s; see yester %s --help", argv[0], names, argv[0]);
	return rc;
}

int options_duration(const char *what, const char *text, int64_t *ns, struct error *error)
{
	char with_unit[32];

	if (config_parse_duration(text, ns))
		return 0;
	if (strlen(text) + 2 <= sizeof with_unit) {
		snprintf(with_unit, sizeof with_unit, "%ss", text);
		if (config_parse_duration(with_unit, ns))
			return 0;
	}
	return error_set(error, ERR_USAGE, 0, "%s %s: that is no time; write it as 90s, 5m, 2h or 1d", what, text);
}
