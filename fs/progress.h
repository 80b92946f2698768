/* progress: what a person sees of work that takes longer than a second. Nothing before that. On a terminal one line that is drawn again and again, with a bar, a
 * rate and the time left; elsewhere (or with TERM=dumb) a plain line every ten seconds. Colour only on a terminal without NO_COLOR.
 * While the store has not answered for some seconds (patience.h), that is what it says, also when nothing was reported yet: a thread looks.
 *
 *	struct progress *progress = progress_new(stderr);
 *	engine->clone(..., progress_report, progress, ...);
 *	progress_free(progress);
 *
 * progress_report may be called from any thread. */
#ifndef YESTER_PROGRESS_H
#define YESTER_PROGRESS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

struct progress;

/* What the stream is. */
struct terminal {
	bool is_tty;   /* a line can be drawn again */
	bool color;
	unsigned width; /* columns; 80 if unknown */
};
void terminal_look(FILE *stream, struct terminal *out);

/* Afterwards a thread of it runs, until progress_free. NULL when out of memory: the others then do nothing. `stream` is borrowed. */
struct progress *progress_new(FILE *stream);
/* A progress_fn (engine.h); context is the struct progress. */
void progress_report(void *context, const char *what, uint64_t done, uint64_t total, const char *unit);
/* Removes the line, so that what is printed next stands alone. More reports may follow. */
void progress_clear(struct progress *progress);
void progress_free(struct progress *progress); /* clears; NULL is fine */

/* --- The parts, for tests. */

/* How fast: a rate that forgets, from (time, amount done) pairs. Zero-initialised is fine. */
struct progress_rate { int64_t last_ns; uint64_t last_done; double per_second; bool started; };
void progress_rate_add(struct progress_rate *rate, int64_t now_ns, uint64_t done);

/* One line for `width` columns, without newline: what falls away first when it is narrow: the bar, the time left, the rate, the
 * amounts. width 0: no limit, and no bar. total 0: unknown. unit "bytes" is shown as sizes. */
void progress_line(char *out, size_t room, unsigned width, bool color, const char *what, uint64_t done, uint64_t total,
		   const char *unit, double per_second);
/* What the thread does each second; `patience` is NULL when nobody waits. */
struct patience;
void progress_wait_at(struct progress *progress, int64_t now_ns, const struct patience *patience);
/* As progress_report at a given time on a given terminal; `progress_new_at` starts the clock of it, and no thread. */
struct progress *progress_new_at(FILE *stream, const struct terminal *terminal, int64_t now_ns);
void progress_report_at(struct progress *progress, int64_t now_ns, const char *what, uint64_t done, uint64_t total,
			const char *unit);

#endif
