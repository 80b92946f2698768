#include "node.h"
#include "snap_node.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

static struct fs fs;

static int setup(void **state)
{
	fs.nodes = node_table_new();
	*state = snap_table_new(&fs);
	return *state && fs.nodes ? 0 : -1;
}

static int teardown(void **state)
{
	snap_table_free(*state);
	node_table_free(fs.nodes);
	return 0;
}

static struct snap_node *get(struct snap_table *table, uint64_t anchor, int64_t seq, int64_t ino, const char *name)
{
	return snap_node_get(table, &(struct snap_node){.kind = SNAP_INODE, .anchor = anchor, .seq = seq, .ino = ino}, name);
}

static void test_one_node_per_key(void **state)
{
	struct snap_node *a = get(*state, 1, 2, 3, ""), *b = get(*state, 1, 2, 3, ""), *c = get(*state, 1, 2, 3, "x");
	struct snap_node *d = get(*state, 9, 2, 3, "");

	assert_ptr_equal(a, b);
	assert_ptr_not_equal(a, c);
	assert_ptr_not_equal(a, d);
	assert_true(a->nodeid >> 63 && c->nodeid >> 63);
	assert_int_equal(snap_table_count(*state), 3);
	snap_node_put(*state, a, 2);
	snap_node_put(*state, c, 1);
	snap_node_put(*state, d, 1);
	assert_int_equal(snap_table_count(*state), 0);
}

static void test_numbers_are_never_used_again(void **state)
{
	struct snap_node *a = get(*state, 0, 1, 1, "");
	uint64_t first = a->nodeid;
	snap_node_put(*state, a, 1);
	assert_null(snap_node_by_id(*state, first));
	a = get(*state, 0, 1, 1, "");
	assert_true(a->nodeid > first);
	snap_node_put(*state, a, 1);
}

static void test_many(void **state)
{
	enum { MANY = 5000 };
	struct snap_node **nodes = calloc(MANY, sizeof(*nodes));

	for (int i = 0; i < MANY; i++)
		nodes[i] = get(*state, 0, i % 7, i, "");
	for (int i = 0; i < MANY; i++) {
		struct snap_node *found = snap_node_by_id(*state, nodes[i]->nodeid);
		assert_ptr_equal(found, nodes[i]);
		snap_node_put(*state, found, 1);
	}
	for (int i = 0; i < MANY; i += 2)
		snap_node_put(*state, nodes[i], 1);
	assert_int_equal(snap_table_count(*state), MANY / 2);
	free(nodes); /* the rest is the table's, as when the kernel is gone */
}

static void test_a_root_holds_its_directory(void **state)
{
	struct node_key key = {.length = 4, .bytes = "\1\0ab"};
	struct node *live = node_get(fs.nodes, &key, 0040000, -1);
	struct snap_node *root = snap_node_get(
		*state, &(struct snap_node){.kind = SNAP_ROOT, .anchor = live->nodeid, .live = live}, "");

	node_put(fs.nodes, live);
	assert_int_equal(node_table_count(fs.nodes), 1);
	snap_node_put(*state, root, 1);
	assert_int_equal(node_table_count(fs.nodes), 0);
}

static void test_inode_numbers(void **state)
{
	(void)state;
	assert_true(snap_st_ino(1, 5) != snap_st_ino(2, 5));
	assert_true(snap_st_ino(1, 5) != snap_st_ino(1, 6));
	assert_true(snap_st_ino(1, 5) >> 63);
	assert_true(snap_root_st_ino(5) != snap_st_ino(1, 5));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_one_node_per_key, setup, teardown),
		cmocka_unit_test_setup_teardown(test_numbers_are_never_used_again, setup, teardown),
		cmocka_unit_test_setup_teardown(test_many, setup, teardown),
		cmocka_unit_test_setup_teardown(test_a_root_holds_its_directory, setup, teardown),
		cmocka_unit_test(test_inode_numbers),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
