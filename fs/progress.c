#include "progress.h"

#include "bytes.h"
#include "clock.h"
#include "human.h"
#include "patience.h"

#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#define QUIET_NS NS_PER_S          /* shorter work shows nothing */
#define REDRAW_NS (NS_PER_S / 10)
#define PLAIN_NS (10 * NS_PER_S)
#define WAIT_NS (3 * NS_PER_S)      /* a store that says nothing for so long is worth a word */
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
	bool waiting;         /* for the store: reports don't show */
	bool stopping;
	pthread_cond_t stop;  /* lock: stopping */
	char what[64];
	struct progress_rate rate;
	bool has_thread;      /* constant, as the next */
	pthread_t thread;
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
	clock_cond_init(&progress->stop);
	return progress;
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

/* Lock must be held. Whether it is time for another line. */
static bool is_due(struct progress *progress, int64_t now_ns)
{
	int64_t wait_ns = progress->terminal.is_tty ? REDRAW_NS : PLAIN_NS;

	/* A plain line also comes only after its time. */
	if (now_ns - progress->started_ns < (progress->terminal.is_tty ? QUIET_NS : PLAIN_NS) ||
	    (progress->drawn_ns != 0 && now_ns - progress->drawn_ns < wait_ns))
		return false;
	progress->drawn_ns = now_ns;
	return true;
}

void progress_report_at(struct progress *progress, int64_t now_ns, const char *what, uint64_t done, uint64_t total,
			const char *unit)
{
	char shown[sizeof progress->what];

	escape_text(shown, sizeof shown, what);
	pthread_mutex_lock(&progress->lock);
	if (strcmp(shown, progress->what) != 0) {
		memcpy(progress->what, shown, sizeof shown);
		progress->rate = (struct progress_rate){ 0 };
	}
	progress_rate_add(&progress->rate, now_ns, done);
	if (!progress->waiting && is_due(progress, now_ns))
		draw(progress, done, total, unit);
	pthread_mutex_unlock(&progress->lock);
}

void progress_report(void *context, const char *what, uint64_t done, uint64_t total, const char *unit)
{
	if (context)
		progress_report_at(context, clock_mono_ns(), what, done, total, unit);
}

/* ---- waiting for the store */

/* Lock must be held. */
static void draw_wait(struct progress *progress, const struct patience *patience)
{
	unsigned width = progress->terminal.width > 1 ? progress->terminal.width - 1 : 1;
	char whom[sizeof patience->whom], why[sizeof patience->why], since[HUMAN_BYTES], line[LINE_BYTES];

	escape_text(whom, sizeof whom, patience->whom);
	escape_text(why, sizeof why, patience->why);
	human_duration(since, (double)patience->waited_ns / (double)NS_PER_S);
	snprintf(line, sizeof line, "waiting for %s, %s%s%.200s%s", whom, since, why[0] ? " (" : "", why, why[0] ? ")" : "");
	if (!progress->terminal.is_tty) {
		fprintf(progress->stream, "%s\n", line);
	} else {
		if (strlen(line) > width)
			line[width] = '\0';
		fprintf(progress->stream, ERASE "%s", line);
		progress->drawn = true;
	}
	fflush(progress->stream);
}

void progress_wait_at(struct progress *progress, int64_t now_ns, const struct patience *patience)
{
	pthread_mutex_lock(&progress->lock);
	if (progress->waiting && !(patience && patience->waited_ns >= WAIT_NS) && progress->drawn)
		erase(progress);
	progress->waiting = patience && patience->waited_ns >= WAIT_NS;
	if (progress->waiting && is_due(progress, now_ns))
		draw_wait(progress, patience);
	pthread_mutex_unlock(&progress->lock);
}

static void *look(void *context)
{
	struct progress *progress = context;

	pthread_setname_np(pthread_self(), "yester-waiting");
	pthread_mutex_lock(&progress->lock);
	while (!progress->stopping) {
		struct timespec until = clock_deadline(NS_PER_S);
		struct patience patience;

		if (pthread_cond_timedwait(&progress->stop, &progress->lock, &until) == 0)
			continue;
		pthread_mutex_unlock(&progress->lock);
		bool waits = patience_look(clock_mono_ns(), &patience);
		progress_wait_at(progress, clock_mono_ns(), waits ? &patience : NULL);
		pthread_mutex_lock(&progress->lock);
	}
	pthread_mutex_unlock(&progress->lock);
	return NULL;
}

struct progress *progress_new(FILE *stream)
{
	struct terminal terminal;
	struct progress *progress;
	sigset_t all, before;

	terminal_look(stream, &terminal);
	progress = progress_new_at(stream, &terminal, clock_mono_ns());
	if (!progress)
		return NULL;
	/* Signals are for who asks a person something (secret_options.c). */
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	progress->has_thread = pthread_create(&progress->thread, NULL, look, progress) == 0;
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	return progress;
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
	if (progress->has_thread) {
		pthread_mutex_lock(&progress->lock);
		progress->stopping = true;
		pthread_cond_signal(&progress->stop);
		pthread_mutex_unlock(&progress->lock);
		pthread_join(progress->thread, NULL);
	}
	progress_clear(progress);
	pthread_cond_destroy(&progress->stop);
	pthread_mutex_destroy(&progress->lock);
	free(progress);
}
