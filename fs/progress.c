#include "progress.h"

#include "bytes.h"
#include "clock.h"
#include "human.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#define QUIET_NS NS_PER_S          /* shorter work shows nothing */
#define REDRAW_NS (NS_PER_S / 10)
#define PLAIN_NS (10 * NS_PER_S)
#define RATE_FORGETS_S 3.0
#define BAR_MOST 30
#define BAR_LEAST 8
#define LINE_BYTES 512
#define ERASE "\r\033[K" /* ECMA-48: to the end of the line */

struct progress {
	FILE *stream;
	struct terminal terminal;
	pthread_mutex_t lock; /* all below */
	int64_t started_ns, drawn_ns;
	bool drawn;           /* a line stands on the terminal */
	char what[64];
	struct progress_rate rate;
};

/* ---- the terminal */

void terminal_look(FILE *stream, struct terminal *out)
{
	const char *term = getenv("TERM"), *no_color = getenv("NO_COLOR"), *columns = getenv("COLUMNS");
	struct winsize size;
	int fd = fileno(stream);

	out->is_tty = fd >= 0 && isatty(fd) && term && strcmp(term, "dumb") != 0;
	out->color = out->is_tty && !(no_color && no_color[0]); /* no-color.org */
	out->width = 80;
	if (fd >= 0 && ioctl(fd, TIOCGWINSZ, &size) == 0 && size.ws_col > 0)
		out->width = size.ws_col;
	else if (columns && atoi(columns) > 0)
		out->width = (unsigned)atoi(columns);
}

/* ---- one line */

void progress_rate_add(struct progress_rate *rate, int64_t now_ns, uint64_t done)
{
	double elapsed_s = (double)(now_ns - rate->last_ns) / (double)NS_PER_S, now, weight;

	if (!rate->started || done < rate->last_done) {
		*rate = (struct progress_rate){ .last_ns = now_ns, .last_done = done, .started = true };
		return;
	}
	if (elapsed_s < 0.05)
		return;
	now = (double)(done - rate->last_done) / elapsed_s;
	weight = elapsed_s >= RATE_FORGETS_S || rate->per_second <= 0 ? 1 : elapsed_s / RATE_FORGETS_S;
	rate->per_second += (now - rate->per_second) * weight;
	rate->last_ns = now_ns;
	rate->last_done = done;
}

static bool is_bytes(const char *unit)
{
	return strcmp(unit, "bytes") == 0;
}

static void amount(char out[HUMAN_BYTES], uint64_t value, const char *unit)
{
	if (is_bytes(unit))
		human_size(out, value);
	else
		human_count(out, value);
}

/* "1.2 of 3.4 GiB" would be shorter, but units that change by themselves are hard to follow. */
static void amounts(char *out, size_t room, uint64_t done, uint64_t total, const char *unit)
{
	char a[HUMAN_BYTES], b[HUMAN_BYTES];

	amount(a, done, unit);
	amount(b, total, unit);
	snprintf(out, room, total ? "%s of %s%s%s" : "%s%.0s%s%s", a, b, is_bytes(unit) ? "" : " ", is_bytes(unit) ? "" : unit);
}

static void bar(char *out, size_t room, unsigned cells, bool color, double share)
{
	unsigned full = (unsigned)(share * cells + 0.5);
	char cell[BAR_MOST + 1];

	memset(cell, ' ', cells);
	memset(cell, '=', full);
	if (full > 0 && full < cells)
		cell[full - 1] = '>';
	cell[cells] = '\0';
	snprintf(out, room, " %s[%s]%s", color ? "\033[32m" : "", cell, color ? "\033[0m" : "");
}

void progress_line(char *out, size_t room, unsigned width, bool color, const char *what, uint64_t done, uint64_t total,
		   const char *unit, double per_second)
{
	char parts[3][128] = { "", "", "" }, drawn[BAR_MOST + 32] = "", percent[8] = "", scratch[HUMAN_BYTES];
	double share = total ? (double)done / (double)total : 0;
	size_t used;
	int count = 1;

	if (share > 1)
		share = 1;
	amounts(parts[0], sizeof parts[0], done, total, unit);
	if (per_second >= 0.05) {
		amount(scratch, (uint64_t)(per_second + 0.5), unit);
		snprintf(parts[1], sizeof parts[1], ", %s/s", scratch);
		count = 2;
		if (total > done) {
			human_duration(scratch, (double)(total - done) / per_second);
			snprintf(parts[2], sizeof parts[2], ", %s left", scratch);
			count = 3;
		}
	}
	if (total)
		snprintf(percent, sizeof percent, " %3d%%", (int)(share * 100));
	/* From the full line to less, until it fits. */
	for (; count > 0; count--) {
		used = strlen(what) + strlen(percent) + 2;
		for (int i = 0; i < count; i++)
			used += strlen(parts[i]);
		if (used <= width || width == 0)
			break;
	}
	used = strlen(what) + strlen(percent) + 2;
	for (int i = 0; i < count; i++)
		used += strlen(parts[i]);
	if (total && used + BAR_LEAST + 3 <= width) {
		unsigned cells = (unsigned)(width - used - 3);

		bar(drawn, sizeof drawn, cells > BAR_MOST ? BAR_MOST : cells, color, share);
	}
	snprintf(out, room, "%s%s%s%s%s%s%s", what, drawn, percent, count > 0 ? "  " : "", count > 0 ? parts[0] : "",
		 count > 1 ? parts[1] : "", count > 2 ? parts[2] : "");
	/* The bar stands only where there is room, so that this cuts plain text. */
	if (!drawn[0] && width > 0 && width < room && strlen(out) > width)
		out[width] = '\0';
}

/* ---- showing it */

struct progress *progress_new_at(FILE *stream, const struct terminal *terminal, int64_t now_ns)
{
	struct progress *progress = calloc(1, sizeof *progress);

	if (!progress)
		return NULL;
	progress->stream = stream;
	progress->terminal = *terminal;
	progress->started_ns = now_ns;
	pthread_mutex_init(&progress->lock, NULL);
	return progress;
}

struct progress *progress_new(FILE *stream)
{
	struct terminal terminal;

	terminal_look(stream, &terminal);
	return progress_new_at(stream, &terminal, clock_mono_ns());
}

static void erase(struct progress *progress)
{
	if (progress->drawn)
		fputs(ERASE, progress->stream);
	progress->drawn = false;
	fflush(progress->stream);
}

/* Lock must be held. */
static void draw(struct progress *progress, uint64_t done, uint64_t total, const char *unit)
{
	/* The last column stays free: many terminals wrap when it is written. */
	unsigned width = progress->terminal.width > 1 ? progress->terminal.width - 1 : 1;
	char line[LINE_BYTES];

	if (!progress->terminal.is_tty) {
		progress_line(line, sizeof line, 0, false, progress->what, done, total, unit, progress->rate.per_second);
		fprintf(progress->stream, "%s\n", line);
		fflush(progress->stream);
		return;
	}
	progress_line(line, sizeof line, width, progress->terminal.color, progress->what, done, total, unit,
		      progress->rate.per_second);
	fprintf(progress->stream, ERASE "%s", line);
	fflush(progress->stream);
	progress->drawn = true;
}

void progress_report_at(struct progress *progress, int64_t now_ns, const char *what, uint64_t done, uint64_t total,
			const char *unit)
{
	int64_t wait_ns = progress->terminal.is_tty ? REDRAW_NS : PLAIN_NS;
	char shown[sizeof progress->what];

	escape_text(shown, sizeof shown, what);
	pthread_mutex_lock(&progress->lock);
	if (strcmp(shown, progress->what) != 0) {
		memcpy(progress->what, shown, sizeof shown);
		progress->rate = (struct progress_rate){ 0 };
	}
	progress_rate_add(&progress->rate, now_ns, done);
	if (now_ns - progress->started_ns >= QUIET_NS && (progress->drawn_ns == 0 || now_ns - progress->drawn_ns >= wait_ns)) {
		/* A plain line also comes only after its time. */
		if (progress->terminal.is_tty || now_ns - progress->started_ns >= PLAIN_NS) {
			progress->drawn_ns = now_ns;
			draw(progress, done, total, unit);
		}
	}
	pthread_mutex_unlock(&progress->lock);
}

void progress_report(void *context, const char *what, uint64_t done, uint64_t total, const char *unit)
{
	if (context)
		progress_report_at(context, clock_mono_ns(), what, done, total, unit);
}

void progress_clear(struct progress *progress)
{
	if (!progress)
		return;
	pthread_mutex_lock(&progress->lock);
	erase(progress);
	pthread_mutex_unlock(&progress->lock);
}

void progress_free(struct progress *progress)
{
	if (!progress)
		return;
	progress_clear(progress);
	pthread_mutex_destroy(&progress->lock);
	free(progress);
}
