/* Fault 48: who may search a directory of a version. */
#include "buf.h"
#include "snap_access.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/stat.h>

#include <cmocka.h>

static const gid_t groups[] = {100, 200};
static const struct caller alice = {10, groups, 2};

static struct inode_row directory(uint32_t mode, uint32_t uid, uint32_t gid)
{
	return (struct inode_row){.ino = 2, .mode = S_IFDIR | mode, .uid = uid, .gid = gid};
}

static void test_mode(void **state)
{
	struct inode_row row;
	(void)state;

	row = directory(0100, 10, 1);
	assert_true(snap_access_search(&alice, &row));
	row = directory(0677, 10, 1); /* the owner's bits count, whatever the others say */
	assert_false(snap_access_search(&alice, &row));
	row = directory(0710, 1, 200);
	assert_true(snap_access_search(&alice, &row));
	row = directory(0701, 1, 200);
	assert_false(snap_access_search(&alice, &row));
	row = directory(0701, 1, 1);
	assert_true(snap_access_search(&alice, &row));
	row = directory(0770, 1, 1);
	assert_false(snap_access_search(&alice, &row));
	row = directory(0, 1, 1);
	assert_true(snap_access_search(&(struct caller){0, groups, 0}, &row));
}

struct entry { uint16_t tag, permissions; uint32_t id; };

/* The stored form (catalogue_schema.h) of one xattr, the ACL. */
static struct buf acl_of(const struct entry *entries, size_t count, size_t cut)
{
	static const char name[] = "system.posix_acl_access";
	struct buf out = {0};
	size_t length = 4 + 8 * count - cut, start;

	assert_int_equal(buf_append_u16(&out, sizeof(name) - 1), 0);
	assert_int_equal(buf_append(&out, name, sizeof(name) - 1), 0);
	assert_int_equal(buf_append_u32(&out, (uint32_t)length), 0);
	start = out.length;
	assert_int_equal(buf_append_u32(&out, 2), 0);
	for (size_t i = 0; i < count; i++) {
		buf_append_u16(&out, entries[i].tag);
		buf_append_u16(&out, entries[i].permissions);
		buf_append_u32(&out, entries[i].id);
	}
	out.length = start + length;
	return out;
}

static bool may(uint32_t mode, uint32_t uid, uint32_t gid, const struct entry *entries, size_t count, size_t cut)
{
	struct buf acl = acl_of(entries, count, cut);
	struct inode_row row = directory(mode, uid, gid);
	row.xattrs = acl.data;
	row.xattrs_length = acl.length;
	bool result = snap_access_search(&alice, &row);
	buf_free(&acl);
	return result;
}

#define COUNT(list) (sizeof(list) / sizeof(*(list)))
#define NONE UINT32_MAX

static void test_acl(void **state)
{
	static const struct entry named[] = {{1, 7, NONE}, {2, 5, 10}, {4, 0, NONE}, {16, 7, NONE}, {32, 0, NONE}};
	static const struct entry masked[] = {{1, 7, NONE}, {2, 5, 10}, {4, 0, NONE}, {16, 4, NONE}, {32, 1, NONE}};
	static const struct entry refused[] = {{1, 7, NONE}, {2, 4, 10}, {4, 7, NONE}, {16, 7, NONE}, {32, 7, NONE}};
	static const struct entry group[] = {{1, 7, NONE}, {4, 0, NONE}, {8, 1, 200}, {16, 7, NONE}, {32, 0, NONE}};
	static const struct entry other_group[] = {{1, 7, NONE}, {4, 0, NONE}, {8, 0, 200}, {16, 7, NONE}, {32, 7, NONE}};
	static const struct entry others[] = {{1, 7, NONE}, {4, 0, NONE}, {8, 0, 300}, {16, 0, NONE}, {32, 1, NONE}};
	(void)state;

	assert_true(may(0770, 1, 1, named, COUNT(named), 0));
	assert_false(may(0741, 1, 1, masked, COUNT(masked), 0));
	assert_false(may(0777, 1, 100, refused, COUNT(refused), 0));
	assert_true(may(0770, 1, 1, group, COUNT(group), 0));
	assert_false(may(0777, 1, 1, other_group, COUNT(other_group), 0));
	assert_true(may(0701, 1, 1, others, COUNT(others), 0));
	/* The owner's bits are those of the mode. */
	assert_true(may(0700, 10, 1, refused, COUNT(refused), 0));
}

static void test_malformed_acl_refuses(void **state)
{
	static const struct entry open[] = {{1, 7, NONE}, {4, 7, NONE}, {32, 7, NONE}};
	struct inode_row row = directory(0777, 1, 1);
	(void)state;

	assert_true(may(0777, 1, 1, open, COUNT(open), 0));
	for (size_t cut = 1; cut < 8; cut++)
		assert_false(may(0777, 1, 1, open, COUNT(open), cut));
	row.xattrs = "\377\377nonsense";
	row.xattrs_length = 10;
	assert_false(snap_access_search(&alice, &row));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_mode),
		cmocka_unit_test(test_acl),
		cmocka_unit_test(test_malformed_acl_refuses),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
