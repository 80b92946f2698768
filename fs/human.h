/* human: numbers, times and words as people read them. Pure, thread-safe. Results in `out` fit HUMAN_BYTES. */
#ifndef YESTER_HUMAN_H
#define YESTER_HUMAN_H

#include <stdint.h>

#define HUMAN_BYTES 40

/* "512 B", "1.4 MiB", "12 GiB". */
void human_size(char out[HUMAN_BYTES], uint64_t bytes);
/* "1,234,567". */
void human_count(char out[HUMAN_BYTES], uint64_t count);
/* "8 s", "2 min 5 s", "3 h 12 min", "4 d 6 h"; below a second "0 s". */
void human_duration(char out[HUMAN_BYTES], double seconds);
/* "2026-11-20 08:14:07 UTC". */
void human_time(char out[HUMAN_BYTES], int64_t seconds);
/* "1 file", "1,234 files": `noun` in the singular. */
void human_plural(char out[HUMAN_BYTES], uint64_t count, const char *noun);
/* For a shell to read: as it is, or in quotes; what a terminal can't show is written as octal numbers. Fresh string, NULL when out of memory. */
char *human_quoted(const char *text);

#endif
