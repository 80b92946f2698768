#include "stress_worker.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <stdio.h>
#include <string.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

/* XFS itself answers direct I/O with EIO when a store to another page of the same large folio allocates blocks meanwhile (iomap_dio_iter,
 * IOMAP_DELALLOC: "Direct I/O collision with buffered writes"). */
static bool collided(const struct file *file, ssize_t count)
{
	return count < 0 && errno == EIO && file->flags & O_DIRECT && w.may_collide;
}

/* From a descriptor that can write, or was opened with O_DIRECT, where FUSE does direct I/O and maps the backing file, splice(2) would read pages that nobody keeps up to date (fuse_splice_read), and is refused. */
static bool refused(const struct file *file, bool spliced, ssize_t count)
{
	return spliced && count < 0 && errno == EINVAL && (is_writing(file->flags) || file->was_direct) && w.may_refuse;
}

/* ------------------------------------------------------------------ reading */

static ssize_t read_range(const struct file *file, size_t length, int64_t from)
{
	struct iovec parts[3] = {{w.buffer, length / 4}, {w.buffer + length / 4, length / 4},
				 {w.buffer + length / 4 * 2, length - length / 4 * 2}};

	if (!(file->flags & O_DIRECT) && chance(20))
		return preadv(file->fd, parts, 3, from);
	if (!file->twin && chance(20)) {
		if (lseek(file->fd, from, SEEK_SET) != from)
			fail("lseek: %s", strerror(errno));
		return read(file->fd, w.buffer, length);
	}
	return pread(file->fd, w.buffer, length, from);
}

static ssize_t splice_out(const struct file *file, size_t length, int64_t from)
{
	int ends[2];
	size_t done = 0;

	if (pipe2(ends, O_CLOEXEC) != 0)
		fail("pipe2: %s", strerror(errno));
	while (done < length) {
		loff_t at = from + (int64_t)done;
		ssize_t count = splice(file->fd, &at, ends[1], NULL, length - done < 65536 ? length - done : 65536, 0);
		if (count < 0) {
			close(ends[0]);
			close(ends[1]);
			return -1;
		}
		if (count == 0)
			break;
		for (ssize_t left = count; left > 0;) {
			ssize_t got = read(ends[0], w.buffer + done, (size_t)left);
			if (got <= 0)
				fail("reading a pipe: %s", strerror(errno));
			done += (size_t)got;
			left -= got;
		}
	}
	close(ends[0]);
	close(ends[1]);
	return (ssize_t)done;
}

/* Of the present file or of the one before. */
static void read_with(ssize_t (*function)(const struct file *file, size_t length, int64_t from))
{
	struct file *file = pick(READ);
	int64_t from, to, size;
	bool at_end = chance(20);

	stress_lock_shape(w.locks, file->slot, false);
	enum standing now = standing(file->slot, file->generation);
	if (now == UNKNOWN) {
		stress_unlock(w.locks, file->slot);
		close_file(file);
		return;
	}
	if (at_end)
		stress_lock_tail(w.locks, file->slot, false);
	size = image_of(file->slot, file->generation)->size;
	choose_range(size, file->flags & O_DIRECT, &from, &to);
	stress_lock_bytes(w.locks, file->slot, from, at_end ? STRESS_SIZE : to, false);
	size_t length = at_end ? (size_t)(STRESS_SIZE - from) : (size_t)(to - from);
	if (at_end)
		to = size;
	ssize_t count = function(file, length, from);
	if (collided(file, count) || refused(file, function == splice_out, count)) {
		stress_unlock(w.locks, file->slot);
		return;
	}
	if (count != to - from)
		fail_at(file->slot, from, to, "read of %zu bytes at %lld of generation %u of %lld bytes: %zd, %s", length, (long long)from,
			file->generation, (long long)size, count, count < 0 ? strerror(errno) : "not what is there");
	compare("read", w.buffer, file->slot, file->generation, from, to);
	stress_unlock(w.locks, file->slot);
	if (now == ORPHAN && chance(20))
		close_file(file);
}

void do_read(void)
{
	read_with(read_range);
}

void do_splice_read(void)
{
	read_with(splice_out);
}

/* What SEEK_DATA passes over must be zero. */
void do_seek(void)
{
	struct file *file = pick(0);

	if (file->twin || !enter(file, false))
		return;
	stress_lock_tail(w.locks, file->slot, false);
	stress_lock_bytes(w.locks, file->slot, 0, STRESS_SIZE, false);
	const struct stress_image *image = image_of(file->slot, file->generation);
	int64_t size = image->size;
	for (int64_t at = 0; at < size;) {
		int64_t data = lseek(file->fd, at, SEEK_DATA);
		if (data < 0 && errno == ENXIO)
			data = size;
		if (data < at || data > size)
			fail_at(file->slot, 0, size, "SEEK_DATA from %lld of %lld: %lld, %s", (long long)at, (long long)size, (long long)data, strerror(errno));
		if (!stress_is_zero(image->bytes + at, (size_t)(data - at)))
			fail_at(file->slot, at, data, "SEEK_DATA from %lld: %lld, but there is data before", (long long)at, (long long)data);
		if (data == size)
			break;
		at = lseek(file->fd, data, SEEK_HOLE);
		/* Equal when what is said of holes has become more exact in between. */
		if (at < data || at > size)
			fail_at(file->slot, 0, size, "SEEK_HOLE from %lld of %lld: %lld, %s", (long long)data, (long long)size, (long long)at, strerror(errno));
	}
	stress_unlock(w.locks, file->slot);
}

void do_stat(void)
{
	struct file *file = pick(0);
	struct stat st;

	if (!enter(file, false))
		return;
	stress_lock_tail(w.locks, file->slot, false);
	if ((chance(50) ? fstat(file->fd, &st) : stat(slot_name(file->slot), &st)) != 0)
		fail("stat: %s", strerror(errno));
	int64_t size = image_of(file->slot, file->generation)->size;
	if (st.st_size != size || st.st_nlink != 1)
		fail_at(file->slot, 0, STRESS_SIZE, "stat says %lld bytes and %d names, not %lld and 1", (long long)st.st_size, (int)st.st_nlink, (long long)size);
	stress_unlock(w.locks, file->slot);
}

/* ------------------------------------------------------------------ writing */

static ssize_t write_range(const struct file *file, const uint8_t *bytes, size_t length, int64_t from)
{
	struct iovec parts[3] = {{(void *)bytes, length / 4}, {(void *)(bytes + length / 4), length / 4},
				 {(void *)(bytes + length / 4 * 2), length - length / 4 * 2}};
	bool direct = file->flags & O_DIRECT;

	if (!direct && chance(25))
		return pwritev2(file->fd, parts, 3, from, chance(70) ? 0 : chance(50) ? RWF_DSYNC : RWF_SYNC);
	if (!file->twin && chance(20)) {
		if (lseek(file->fd, from, SEEK_SET) != from)
			fail("lseek: %s", strerror(errno));
		return write(file->fd, bytes, length);
	}
	return pwrite(file->fd, bytes, length, from);
}

static ssize_t splice_in(const struct file *file, const uint8_t *bytes, size_t length, int64_t from)
{
	int ends[2];
	size_t done = 0;

	if (pipe2(ends, O_CLOEXEC) != 0)
		fail("pipe2: %s", strerror(errno));
	while (done < length) {
		ssize_t count = write(ends[1], bytes + done, length - done < 32768 ? length - done : 32768);
		if (count <= 0)
			fail("writing a pipe: %s", strerror(errno));
		while (count > 0) {
			loff_t at = from + (int64_t)done;
			ssize_t moved = splice(ends[0], NULL, file->fd, &at, (size_t)count, 0);
			if (collided(file, moved))
				continue;
			if (moved <= 0)
				fail_at(file->slot, from, from + (int64_t)length, "splice: %s", strerror(errno));
			done += (size_t)moved;
			count -= moved;
		}
	}
	close(ends[0]);
	close(ends[1]);
	return (ssize_t)done;
}

/* Before the end is moved by a write. tail is held. */
static void fill_page(const struct file *file, struct stress_image *image)
{
	int64_t size = (image->size + STRESS_PAGE - 1) / STRESS_PAGE * STRESS_PAGE;

	if (!w.whole_pages || size == image->size)
		return;
	if (ftruncate(file->fd, size) != 0)
		fail("ftruncate to %lld: %s", (long long)size, strerror(errno));
	image->size = size;
}

/* Within the file, or from a place of the last page or behind the end on, which moves it. */
static void write_with(ssize_t (*function)(const struct file *file, const uint8_t *bytes, size_t length, int64_t from))
{
	struct file *file = pick(WRITE | PLACE);
	int64_t from, to;
	uint8_t tag = new_tag();

	if (!enter(file, false))
		return;
	struct stress_image *image = image_of(file->slot, file->generation);
	bool direct = file->flags & O_DIRECT, further = chance(20);
	if (further) {
		stress_lock_tail(w.locks, file->slot, true);
		fill_page(file, image);
		from = image->size + (chance(70) ? -below(500) : below(20000));
		if (from < 0 || direct)
			from = (from < 0 ? 0 : from) / STRESS_PAGE * STRESS_PAGE;
		to = from + 1 + below(20000);
		if (direct)
			to = (to + STRESS_PAGE - 1) / STRESS_PAGE * STRESS_PAGE;
	} else {
		choose_range(image->size, direct, &from, &to);
	}
	if (to > STRESS_SIZE || from >= to) {
		stress_unlock(w.locks, file->slot);
		return;
	}
	/* The page of the old end changes too when there is a gap. */
	stress_lock_bytes(w.locks, file->slot, further && image->size < from ? image->size : from, to, true);
	struct stress_note *noted = note(file->slot, from, to, tag);
	stress_fill(w.buffer, (size_t)(to - from), from, tag);
	ssize_t count = function(file, w.buffer, (size_t)(to - from), from);
	while (collided(file, count))
		count = function(file, w.buffer, (size_t)(to - from), from);
	if (count != to - from)
		fail_at(file->slot, from, to, "write of [%lld, %lld) with flags %#o: %zd, %s", (long long)from, (long long)to,
			(unsigned)file->flags, count, strerror(errno));
	memcpy(image->bytes + from, w.buffer, (size_t)(to - from));
	if (image->size < to)
		image->size = to;
	leave(file->slot, noted);
}

void do_write(void)
{
	write_with(write_range);
}

void do_splice_write(void)
{
	write_with(splice_in);
}

void do_append(void)
{
	struct file *file = pick(WRITE);
	uint8_t tag = new_tag();

	if (!enter(file, false))
		return;
	stress_lock_tail(w.locks, file->slot, true);
	struct stress_image *image = image_of(file->slot, file->generation);
	fill_page(file, image);
	int64_t from = image->size, to = from + 1 + below(chance(80) ? 500 : 20000);
	/* Direct I/O needs an end on a boundary. */
	if (file->flags & O_DIRECT) {
		to = from + (1 + below(4)) * STRESS_PAGE;
		if (from % STRESS_PAGE)
			to = INT64_MAX;
	}
	if (to > STRESS_SIZE) {
		stress_unlock(w.locks, file->slot);
		return;
	}
	stress_lock_bytes(w.locks, file->slot, from, to, true);
	struct stress_note *noted = note(file->slot, from, to, tag);
	struct iovec part = {w.buffer, (size_t)(to - from)};
	stress_fill(w.buffer, part.iov_len, from, tag);
	/* pwrite(2) appends too; XFS wants an aligned position for direct I/O even then. */
	ssize_t count;
	do
		count = file->flags & O_APPEND ? pwrite(file->fd, w.buffer, part.iov_len, 0) : pwritev2(file->fd, &part, 1, 0, RWF_APPEND);
	while (collided(file, count));
	if (count != to - from)
		fail_at(file->slot, from, to, "append of %lld bytes at %lld: %zd, %s", (long long)(to - from), (long long)from, count, strerror(errno));
	memcpy(image->bytes + from, w.buffer, part.iov_len);
	image->size = to;
	leave(file->slot, noted);
}

/* ------------------------------------------------------------------ size and holes */

void do_truncate(void)
{
	struct file *file = pick(WRITE);
	int64_t size = below(STRESS_SIZE) / (chance(50) ? 1 : 8);

	if (chance(20))
		size -= size % STRESS_PAGE;
	if (!enter(file, true))
		return;
	struct stress_image *image = image_of(file->slot, file->generation);
	struct stress_note *noted = note(file->slot, size < image->size ? size : image->size, STRESS_SIZE, 0);
	if ((chance(60) ? ftruncate(file->fd, size) : truncate(slot_name(file->slot), size)) != 0)
		fail_at(file->slot, size, STRESS_SIZE, "truncate to %lld: %s", (long long)size, strerror(errno));
	stress_image_resize(image, size);
	leave(file->slot, noted);
}

void do_allocate(void)
{
	struct file *file = pick(WRITE);
	bool keep = w.can_keep && chance(40);

	if (!enter(file, false))
		return;
	stress_lock_tail(w.locks, file->slot, true);
	struct stress_image *image = image_of(file->slot, file->generation);
	int64_t from = below(image->size + 5000), to = from + 1 + below(30000);
	if (to > STRESS_SIZE) {
		stress_unlock(w.locks, file->slot);
		return;
	}
	int64_t low = image->size < from ? image->size : from;
	stress_lock_bytes(w.locks, file->slot, low, to, true);
	struct stress_note *noted = note(file->slot, low, to, 0);
	if (fallocate(file->fd, keep ? FALLOC_FL_KEEP_SIZE : 0, from, to - from) != 0)
		fail_at(file->slot, from, to, "fallocate: %s", strerror(errno));
	if (!keep && image->size < to)
		image->size = to;
	leave(file->slot, noted);
}

void do_zero(void)
{
	struct file *file = pick(WRITE);
	int mode = w.can_zero && (!w.can_punch || chance(40)) ? FALLOC_FL_ZERO_RANGE | (chance(50) ? FALLOC_FL_KEEP_SIZE : 0)
							   : FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE;
	int64_t from, to;

	if ((!w.can_zero && !w.can_punch) || !enter(file, false))
		return;
	struct stress_image *image = image_of(file->slot, file->generation);
	choose_range(image->size, false, &from, &to);
	if (from < to) {
		stress_lock_bytes(w.locks, file->slot, from, to, true);
		struct stress_note *noted = note(file->slot, from, to, 0);
		if (fallocate(file->fd, mode, from, to - from) != 0)
			fail_at(file->slot, from, to, "fallocate of mode %d: %s", mode, strerror(errno));
		memset(image->bytes + from, 0, (size_t)(to - from));
		noted->done = true;
	}
	stress_unlock(w.locks, file->slot);
}

/* ------------------------------------------------------------------ from file to file */

/* Opening a file may have closed this one. */
static bool still(const struct file *file, const struct file *before)
{
	return file->fd == before->fd && file->slot == before->slot && file->flags == before->flags && file->generation == before->generation;
}

/* Locks both shapes and the two ranges; the destination stays within its size. False: nothing is locked. */
static bool enter_both(struct file *in, struct file *out, int64_t *from, int64_t *to, int64_t *place)
{
	struct file *first = in->slot <= out->slot ? in : out, *second = first == in ? out : in;
	bool same = in->slot == out->slot;

	if (!enter(first, false))
		return false;
	if (same ? second->generation != first->generation : !enter(second, false)) {
		stress_unlock(w.locks, first->slot);
		return false;
	}
	int64_t room = image_of(out->slot, out->generation)->size;
	choose_range(image_of(in->slot, in->generation)->size, false, from, to);
	*place = room ? below(room) : 0;
	/* copy_file_range(2) refuses ranges that overlap, and one lock of ours must not replace the other. */
	int64_t behind = (*to + STRESS_PAGE - 1) / STRESS_PAGE * STRESS_PAGE;
	if (same && *place < behind)
		*place = behind;
	if (*to - *from > room - *place)
		*to = *from + (room > *place ? room - *place : 0);
	if (*from >= *to) {
		stress_unlock(w.locks, first->slot);
		if (!same)
			stress_unlock(w.locks, second->slot);
		return false;
	}
	/* In one file the source lies below the destination. */
	if (first == in || same) {
		stress_lock_bytes(w.locks, in->slot, *from, *to, false);
		stress_lock_bytes(w.locks, out->slot, *place, *place + (*to - *from), true);
	} else {
		stress_lock_bytes(w.locks, out->slot, *place, *place + (*to - *from), true);
		stress_lock_bytes(w.locks, in->slot, *from, *to, false);
	}
	return true;
}

static void copied(const struct file *in, const struct file *out, int64_t from, int64_t place, ssize_t count, struct stress_note *noted)
{
	if (count > 0)
		memmove(image_of(out->slot, out->generation)->bytes + place, image_of(in->slot, in->generation)->bytes + from, (size_t)count);
	leave(in->slot, noted);
	if (in->slot != out->slot)
		stress_unlock(w.locks, out->slot);
}

void do_copy(void)
{
	struct file *in = pick(READ), source = *in;
	int64_t from, to, place;

	struct file *out = pick(WRITE | PLACE);
	if (!still(in, &source) || (in->flags | out->flags) & O_DIRECT || !enter_both(in, out, &from, &to, &place))
		return;
	struct stress_note *noted = note(out->slot, place, place + (to - from), 0);
	loff_t in_at = from, out_at = place;
	ssize_t count = copy_file_range(in->fd, &in_at, out->fd, &out_at, (size_t)(to - from), 0);
	if (count <= 0 || count > to - from || in_at != from + count || out_at != place + count)
		fail_at(out->slot, place, place + (to - from), "copy_file_range of %lld bytes from %s at %lld: %zd, %s", (long long)(to - from),
			slot_name(in->slot), (long long)from, count, strerror(errno));
	copied(in, out, from, place, count, noted);
}

void do_sendfile(void)
{
	struct file *in = pick(READ), source = *in;
	int64_t from, to, place;

	struct file *out = pick(WRITE | PLACE);
	if (!still(in, &source) || out->twin || (in->flags | out->flags) & O_DIRECT || !enter_both(in, out, &from, &to, &place))
		return;
	struct stress_note *noted = note(out->slot, place, place + (to - from), 0);
	off_t at = from;
	if (lseek(out->fd, place, SEEK_SET) != place)
		fail("lseek: %s", strerror(errno));
	ssize_t count = sendfile(out->fd, in->fd, &at, (size_t)(to - from));
	if (refused(in, true, count)) {
		copied(in, out, from, place, 0, noted);
		return;
	}
	if (count <= 0 || count > to - from || at != from + count)
		fail_at(out->slot, place, place + (to - from), "sendfile of %lld bytes from %s at %lld: %zd, %s", (long long)(to - from),
			slot_name(in->slot), (long long)from, count, strerror(errno));
	copied(in, out, from, place, count, noted);
}

/* ------------------------------------------------------------------ what changes no byte */

void do_sync(void)
{
	struct file *file = pick(0);

	switch (below(5)) {
	case 0:
		if (fsync(file->fd) != 0)
			fail("fsync: %s", strerror(errno));
		break;
	case 1:
		if (fdatasync(file->fd) != 0)
			fail("fdatasync: %s", strerror(errno));
		break;
	case 2:
		if (sync_file_range(file->fd, below(STRESS_SIZE), 50000, SYNC_FILE_RANGE_WRITE) != 0)
			fail("sync_file_range: %s", strerror(errno));
		break;
	case 3:
		posix_fadvise(file->fd, below(STRESS_SIZE), 50000, POSIX_FADV_DONTNEED);
		break;
	default:
		readahead(file->fd, below(STRESS_SIZE), 50000);
	}
}

/* A time that is set makes a kernel that compares times drop its pages. */
void do_attributes(void)
{
	struct file *file = pick(0);
	struct timespec times[2] = {{.tv_sec = below(INT32_MAX), .tv_nsec = below(1000000000)}, {.tv_sec = below(INT32_MAX)}};

	if ((chance(60) ? futimens(file->fd, times) : fchmod(file->fd, 0600 | (mode_t)below(0100))) != 0)
		fail("attributes: %s", strerror(errno));
}
