/* nearest: what somebody meant who mistyped a word. Pure, thread-safe. */
#ifndef YESTER_NEAREST_H
#define YESTER_NEAREST_H

#include <stddef.h>

/* Levenshtein distance in bytes; SIZE_MAX when a word has more than 63. */
size_t edit_distance(const char *a, const char *b);

#endif
