/* simulate_catalogue: the catalogue after a long history, on the real schema and the real delta_apply.
 *
 *   simulate_catalogue [VERSIONS [FILES [DIRECTORY]]]     defaults 100000 100000 and a fresh directory below $TMPDIR
 *
 * A tree of FILES files; then, in each version: six random 4 KiB pages of a 1 GiB database are rewritten, page 0 always one of them (the regions
 * that become too dense are sealed again as the sealer does); a mail arrives in a maildir that keeps 1,000; three source files are edited; an editor's
 * temporary name appears and that of the version before goes. At 1,000, 10,000, ... versions it prints what things cost then. Times are of
 * this process alone on one core; `old`, `middle`, `new` are the versions asked for. */
#include "catalogue.h"
#include "clock.h"
#include "db.h"
#include "delta.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define PAGE 4096
#define DB_PAGES (1 << 18) /* 1 GiB */
#define REGION_PAGES 256   /* sealed again at 64 extents */
#define REGION_DENSE 64
#define FILES_A_DIR 100
#define MAILS 1000
#define BATCH 200 /* versions a transaction */

enum { INO_DB = 2, INO_MAIL_DIR = 3, INO_FIRST = 10 };

static struct db *db;
static char *dir;
static int64_t files, next_ino, next_chunk = 1, next_pack = 1;
static int64_t mails[MAILS], temp_ino;
static int64_t delta_bytes, delta_stored, delta_samples;

/* The database file: for each page the page at which its extent begins; at that page, the extent. */
static int32_t head_of[DB_PAGES], pages_of[DB_PAGES];
static int64_t chunk_of[DB_PAGES], skip_of[DB_PAGES];

static uint64_t random_state = 88172645463325252u;
static uint64_t random_below(uint64_t n)
{
	random_state ^= random_state << 13;
	random_state ^= random_state >> 7;
	random_state ^= random_state << 17;
	return random_state % n;
}

static struct error error;
static void must(int rc, const char *what)
{
	if (rc) {
		fprintf(stderr, "%s: %s\n", what, error.message);
		exit(1);
	}
}

/* --- Rows --- */

static void inode(struct delta *delta, int64_t ino, uint32_t mode, int64_t size)
{
	int64_t now = delta_seq(delta) * 15 * NS_PER_S + (int64_t)random_below(NS_PER_S);
	struct inode_row row = {.ino = ino, .mode = mode, .uid = 1000, .gid = 1000, .nlink = 1, .size = size, .atime_ns = now,
				.mtime_ns = now, .ctime_ns = now, .btime_ns = 1};

	must(delta_add_inode(delta, &row, &error), "inode");
}

static int64_t chunk(struct delta *delta, int64_t length)
{
	struct chunk_row row = {.num = next_chunk++, .pack = next_pack, .length = length, .stored = length / 2 + 16, .codec = 1};

	for (size_t i = 0; i < sizeof(row.id); i++)
		row.id[i] = (uint8_t)random_below(256);
	row.offset = (row.num * 4111) & 0xffffff;
	must(delta_add_chunk(delta, &row, &error), "chunk");
	return row.num;
}

static void pack(struct delta *delta)
{
	struct pack_row row = {.num = next_pack++, .size = 20000, .record = delta_seq(delta)};

	for (size_t i = 0; i < 32; i++) {
		row.salt[i] = (uint8_t)random_below(256);
		row.hash[i] = (uint8_t)random_below(256);
		row.id[i & 15] = (uint8_t)random_below(256);
	}
	must(delta_add_pack(delta, &row, &error), "pack");
}

static void extent(struct delta *delta, int64_t ino, int64_t start, int64_t length, int64_t number, int64_t skip)
{
	must(delta_add_extent(delta, &(struct extent_row){ino, start, length, number, skip}, &error), "extent");
}

static void small_file(struct delta *delta, int64_t ino, int64_t size)
{
	inode(delta, ino, S_IFREG | 0644, size);
	extent(delta, ino, 0, size, chunk(delta, size), 0);
}

static void name(struct delta *delta, int64_t parent, const char *text, int64_t ino)
{
	must(delta_add_name(delta, parent, text, strlen(text), ino, &error), "name");
}

static void remove_file(struct delta *delta, int64_t parent, const char *text, int64_t ino)
{
	must(delta_add_name_end(delta, parent, text, strlen(text), &error), "name_end");
	must(delta_add_extent_end(delta, ino, 0, &error), "extent_end");
	must(delta_add_inode_end(delta, ino, &error), "inode_end");
}

/* --- What happens in a version --- */

static void db_extent(struct delta *delta, int32_t page, int32_t count, int64_t number, int64_t skip)
{
	for (int32_t i = 0; i < count; i++)
		head_of[page + i] = page;
	pages_of[page] = count;
	chunk_of[page] = number;
	skip_of[page] = skip;
	extent(delta, INO_DB, (int64_t)page * PAGE, (int64_t)count * PAGE, number, skip);
}

static void reseal_region(struct delta *delta, int32_t page)
{
	int32_t first = page / REGION_PAGES * REGION_PAGES, count = 0;

	for (int32_t i = 0; i < REGION_PAGES; i++)
		count += head_of[first + i] == first + i;
	if (count < REGION_DENSE)
		return;
	for (int32_t i = 1; i < REGION_PAGES; i++)
		if (head_of[first + i] == first + i)
			must(delta_add_extent_end(delta, INO_DB, (int64_t)(first + i) * PAGE, &error), "extent_end");
	db_extent(delta, first, REGION_PAGES, chunk(delta, REGION_PAGES * PAGE), 0);
}

static void write_page(struct delta *delta, int32_t page)
{
	int32_t head = head_of[page], count = pages_of[head];
	int64_t number = chunk_of[head], skip = skip_of[head];

	if (page > head)
		db_extent(delta, head, page - head, number, skip);
	if (page + 1 < head + count)
		db_extent(delta, page + 1, head + count - page - 1, number, skip + (int64_t)(page + 1 - head) * PAGE);
	db_extent(delta, page, 1, chunk(delta, PAGE), 0);
}

static void fill_tree(struct delta *delta)
{
	char text[32];

	inode(delta, CATALOGUE_ROOT_INO, S_IFDIR | 0755, 4096);
	inode(delta, INO_DB, S_IFREG | 0644, (int64_t)DB_PAGES * PAGE);
	name(delta, CATALOGUE_ROOT_INO, "data.db", INO_DB);
	for (int32_t page = 0; page < DB_PAGES; page += 128)
		db_extent(delta, page, 128, chunk(delta, 128 * PAGE), 0);
	inode(delta, INO_MAIL_DIR, S_IFDIR | 0700, 4096);
	name(delta, CATALOGUE_ROOT_INO, "new", INO_MAIL_DIR);
	next_ino = INO_FIRST;
	int64_t parent = 0;
	for (int64_t i = 0; i < files; i++) {
		if (i % FILES_A_DIR == 0) {
			parent = next_ino++;
			inode(delta, parent, S_IFDIR | 0755, 4096);
			snprintf(text, sizeof(text), "dir%06lld", (long long)(i / FILES_A_DIR));
			name(delta, CATALOGUE_ROOT_INO, text, parent);
		}
		snprintf(text, sizeof(text), "source-file-%03lld.c", (long long)(i % FILES_A_DIR));
		small_file(delta, next_ino, 1000 + (int64_t)random_below(20000));
		name(delta, parent, text, next_ino++);
	}
}

static void change_tree(struct delta *delta)
{
	int64_t seq = delta_seq(delta), slot = seq % MAILS;
	int32_t touched[6] = {0};
	char text[48];

	inode(delta, INO_DB, S_IFREG | 0644, (int64_t)DB_PAGES * PAGE);
	for (int i = 0; i < 6; i++) {
		touched[i] = i ? (int32_t)random_below(DB_PAGES) : 0;
		write_page(delta, touched[i]);
	}
	for (int i = 0; i < 6; i++)
		reseal_region(delta, touched[i]);
	if (mails[slot]) {
		snprintf(text, sizeof(text), "%lld.M1P2.host", (long long)(seq - MAILS));
		remove_file(delta, INO_MAIL_DIR, text, mails[slot]);
	}
	snprintf(text, sizeof(text), "%lld.M1P2.host", (long long)seq);
	mails[slot] = next_ino;
	small_file(delta, next_ino, 3000);
	name(delta, INO_MAIL_DIR, text, next_ino++);
	inode(delta, INO_MAIL_DIR, S_IFDIR | 0700, 4096);
	for (int i = 0; i < 3; i++) {
		/* every (FILES_A_DIR + 1)th number, from INO_FIRST on, is a directory */
		int64_t n = (int64_t)random_below((uint64_t)files);
		small_file(delta, INO_FIRST + n + n / FILES_A_DIR + 1, 1000 + (int64_t)random_below(20000));
	}
	snprintf(text, sizeof(text), ".swp%lld", (long long)(seq - 1));
	if (temp_ino)
		remove_file(delta, INO_FIRST, text, temp_ino);
	snprintf(text, sizeof(text), ".swp%lld", (long long)seq);
	temp_ino = next_ino++;
	small_file(delta, temp_ino, 12288);
	name(delta, INO_FIRST, text, temp_ino);
	inode(delta, INO_FIRST, S_IFDIR | 0755, 4096);
	pack(delta);
}

/* --- Measuring --- */

static double ms_since(int64_t start) { return (double)(clock_mono_ns() - start) / 1e6; }

/* Bytes that `zstd -3` makes of a descriptor's file. */
static int64_t zstd_bytes(int fd, uint64_t length)
{
	char command[128];
	long long bytes = -1;

	lseek(fd, 0, SEEK_SET);
	snprintf(command, sizeof(command), "zstd -3 -q -c --stream-size=%llu < /proc/%d/fd/%d | wc -c", (unsigned long long)length,
		 (int)getpid(), fd);
	FILE *pipe = popen(command, "r");
	if (!pipe || fscanf(pipe, "%lld", &bytes) != 1)
		bytes = -1;
	if (pipe)
		pclose(pipe);
	return bytes;
}

static int count_entry(void *context, const void *text, size_t length, int64_t ino)
{
	(void)text, (void)length, (void)ino;
	++*(int64_t *)context;
	return 0;
}

static void measure_version(struct db_conn *conn, const char *label, int64_t seq)
{
	int64_t start = clock_mono_ns(), entries = 0, found = 0, ino;
	const int rounds = 2000;

	for (int i = 0; i < rounds; i++) {
		int64_t n = (int64_t)random_below((uint64_t)files);
		int64_t parent = INO_FIRST + n / FILES_A_DIR * (FILES_A_DIR + 1);
		char text[32];
		struct inode_hold hold;
		snprintf(text, sizeof(text), "source-file-%03lld.c", (long long)(n % FILES_A_DIR));
		must(catalogue_lookup(conn, seq, parent, text, strlen(text), &ino), "lookup");
		must(catalogue_inode(conn, seq, ino, &hold), "inode");
		inode_hold_free(&hold);
		found++;
	}
	double lookup = ms_since(start) * 1000 / rounds;
	start = clock_mono_ns();
	must(catalogue_list(conn, seq, INO_MAIL_DIR, count_entry, &entries), "list");
	double mail = ms_since(start);
	start = clock_mono_ns();
	int64_t temps = 0;
	must(catalogue_list(conn, seq, INO_FIRST, count_entry, &temps), "list");
	double temp = ms_since(start);
	struct extent_place *places;
	size_t count;
	start = clock_mono_ns();
	must(catalogue_extents(conn, seq, INO_DB, 0, INT64_MAX, &places, &count), "extents");
	double map = ms_since(start);
	int64_t bytes = 0;
	for (size_t i = 0; i < count; i++)
		bytes += places[i].length;
	free(places);
	if (bytes != (int64_t)DB_PAGES * PAGE || temps != FILES_A_DIR + (seq > 1)) {
		fprintf(stderr, "version %lld: %lld bytes mapped, %lld names\n", (long long)seq, (long long)bytes,
			(long long)temps);
		exit(1);
	}
	printf("  %-7s v%-7lld lookup+inode %6.1f us   list mail (%4lld) %6.2f ms   list src (%lld) %5.2f ms   "
	       "extent map (%6zu) %6.1f ms\n",
	       label, (long long)seq, lookup, (long long)entries, mail, (long long)temps, temp, count, map);
}

static void measure(int64_t seq, double apply_ms, double build_ms)
{
	struct db_conn *conn;
	struct stat st;
	char *path;
	int fd;
	uint64_t length;

	db_tidy(db);
	if (asprintf(&path, "%s/volume.db", dir) < 0 || stat(path, &st) != 0)
		exit(1);
	free(path);
	int64_t start = clock_mono_ns();
	must(db_quick_check(db, &error), "quick_check");
	double check = ms_since(start);
	printf("version %lld: database %.1f MiB, build %.2f ms, apply %.2f ms a version; delta %lld bytes, zstd %lld; "
	       "quick_check %.0f ms\n",
	       (long long)seq, (double)st.st_size / (1 << 20), build_ms, apply_ms, (long long)(delta_bytes / delta_samples),
	       (long long)(delta_stored / delta_samples), check);
	delta_bytes = delta_stored = delta_samples = 0;
	must(db_read_begin(db, &conn, &error), "read");
	measure_version(conn, "new", seq);
	measure_version(conn, "middle", seq / 2);
	measure_version(conn, "old", seq > 20 ? 20 : 1);
	db_read_end(db, conn);
	start = clock_mono_ns();
	must(catalogue_export(db, seq, dir, &fd, &length, &error), "export");
	double export = ms_since(start);
	printf("  checkpoint %.1f MiB in %.0f ms (verified), zstd -3 %.1f MiB\n", (double)length / (1 << 20), export,
	       (double)zstd_bytes(fd, length) / (1 << 20));
	close(fd);
	fflush(stdout);
}

static void sample_delta(struct delta *delta)
{
	int fd;
	uint64_t length;

	must(delta_image(delta, &fd, &length, &error), "image");
	delta_bytes += (int64_t)length;
	delta_stored += zstd_bytes(fd, length);
	delta_samples++;
	close(fd);
}

static void one_version(struct db_conn *conn, int64_t seq, bool sample, double *build, double *apply)
{
	struct delta *delta;
	struct version_row version = {.seq = seq, .time_s = 1700000000 + seq * 15, .cut_ns = seq * 15 * NS_PER_S};
	int64_t start = clock_mono_ns();

	must(delta_new(dir, seq, &delta, &error), "delta");
	must(delta_set_version(delta, &version, &error), "version");
	if (seq == 1)
		fill_tree(delta);
	else
		change_tree(delta);
	*build += ms_since(start);
	if (sample)
		sample_delta(delta);
	start = clock_mono_ns();
	must(delta_apply(delta, conn, &error), "apply");
	*apply += ms_since(start);
	delta_free(delta);
}

int main(int argc, char **argv)
{
	int64_t versions = argc > 1 ? atoll(argv[1]) : 100000;
	files = argc > 2 ? atoll(argv[2]) : 100000;
	if (argc > 3) {
		dir = strdup(argv[3]);
	} else {
		if (asprintf(&dir, "%s/simulate-XXXXXX", getenv("TMPDIR") ? getenv("TMPDIR") : "/tmp") < 0 || !mkdtemp(dir))
			return 1;
	}
	must(db_open(dir, true, &db, &error), "open");
	struct db_conn *conn = NULL;
	double build = 0, apply = 0;
	int64_t since = 0, next_measure = 1000;
	for (int64_t seq = 1; seq <= versions; seq++) {
		if (!conn)
			must(db_begin(db, false, &conn, &error), "begin");
		one_version(conn, seq, seq == 2 || seq % 997 == 0, &build, &apply);
		if (seq == 1)
			printf("first version, %lld files: build %.0f ms, apply %.0f ms\n", (long long)files, build, apply);
		bool stop = seq == next_measure || seq == versions;
		since = seq == 1 ? (build = apply = 0, 0) : since + 1;
		if (seq % BATCH && !stop)
			continue;
		must(db_commit(db, &error), "commit");
		conn = NULL;
		db_tidy(db);
		if (!stop)
			continue;
		measure(seq, apply / (double)since, build / (double)since);
		build = apply = 0;
		since = 0;
		if (seq == next_measure)
			next_measure *= 10;
	}
	db_close(db);
	if (argc <= 3) {
		char *path;
		if (asprintf(&path, "%s/volume.db", dir) > 0)
			unlink(path);
		rmdir(dir);
	}
	return 0;
}
