/* node: identity, references, numbers, lookups, and many threads at once. */
#include "node.h"

#include "bytes.h"

#include <errno.h>
#include <fcntl.h>
#include <malloc.h>
#include <setjmp.h>
#include <stdarg.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

static struct node_key key_of(int type, uint64_t number)
{
	struct node_key key = { .length = 10 };

	put_u16(key.bytes, (uint16_t)type);
	put_u64(key.bytes + 2, number);
	return key;
}

static struct node *get(struct node_table *table, uint64_t number)
{
	struct node_key key = key_of(1, number);
	struct node *node = node_get(table, &key, S_IFREG | 0644, -1);

	assert_non_null(node);
	return node;
}

static void test_identity(void **state)
{
	struct node_table *table = node_table_new();
	struct node_key key = key_of(1, 7), copy, other = key_of(2, 7), shorter = key;
	struct node *root, *a;

	(void)state;
	shorter.length = 9;
	root = get(table, 1);
	assert_int_equal(root->nodeid, 1);
	a = get(table, 7);
	assert_int_equal(a->nodeid, 2);
	assert_int_equal(a->type, S_IFREG);
	assert_int_equal(atomic_load(&a->held_fd), -1);
	assert_ptr_equal(get(table, 7), a);
	assert_ptr_equal(node_find(table, &key), a);
	assert_ptr_equal(node_by_id(table, 2), a);
	assert_null(node_find(table, &other));
	assert_null(node_find(table, &shorter));
	assert_null(node_by_id(table, 3));
	node_key_of(a, &copy);
	assert_true(node_key_equal(&copy, &key));
	assert_false(node_key_equal(&copy, &other));
	assert_int_equal(node_key_type(&other), 2);
	other = key_of(NODE_KEY_NO_HANDLE, 1);
	assert_int_equal(node_key_type(&other), NODE_KEY_NO_HANDLE);
	assert_int_equal(node_table_count(table), 2);
	node_ref(table, a);
	for (int i = 0; i < 5; i++)
		node_put(table, a);
	assert_int_equal(node_table_count(table), 1);
	assert_null(node_find(table, &key));
	assert_null(node_by_id(table, 2));
	/* Never the same number again. */
	a = get(table, 7);
	assert_int_equal(a->nodeid, 3);
	node_put(table, a);
	node_put(table, root);
	node_put(table, NULL);
	node_table_free(table);
	node_table_free(NULL);
}

static void test_lookups(void **state)
{
	struct node_table *table = node_table_new();
	struct node *node = get(table, 5);

	(void)state;
	node_lookup_add(table, node);
	assert_ptr_equal(get(table, 5), node);
	node_lookup_add(table, node);
	assert_int_equal(node->lookups, 2);
	assert_int_equal(atomic_load(&node->references), 1);
	node_lookup_forget(table, node->nodeid, 1);
	assert_int_equal(node_table_count(table), 1);
	node_lookup_forget(table, node->nodeid, 1);
	assert_int_equal(node_table_count(table), 0);
	node_lookup_forget(table, 1, 1); /* unknown: ignored */
	/* More than there are; the other references stay. */
	node = get(table, 5);
	node_ref(table, node);
	node_lookup_add(table, node);
	node_lookup_forget(table, node->nodeid, 100);
	assert_int_equal(node_table_count(table), 1);
	node_lookup_forget(table, node->nodeid, 1);
	assert_int_equal(atomic_load(&node->references), 1);
	node_put(table, node);
	/* The kernel is gone and has left lookups. */
	node_lookup_add(table, get(table, 6));
	node_table_free(table);
}

static void freed(void *context, uint64_t nodeid)
{
	*(uint64_t *)context = nodeid;
}

static void test_held(void **state)
{
	struct node_table *table = node_table_new();
	struct node_key key = key_of(NODE_KEY_NO_HANDLE, 9);
	int fd = open("/", O_PATH | O_CLOEXEC), held;
	uint64_t last = 0;
	struct node *node;

	(void)state;
	node_table_on_free(table, freed, &last);
	/* With a handle nothing is kept. */
	node = get(table, 1);
	node_put(table, node);
	assert_int_equal(last, 1);
	/* From the database first, then seen. */
	node = node_get(table, &key, S_IFDIR, -1);
	assert_int_equal(atomic_load(&node->held_fd), -1);
	assert_ptr_equal(node_get(table, &key, S_IFDIR, fd), node);
	held = atomic_load(&node->held_fd);
	assert_true(held >= 0 && held != fd);
	assert_ptr_equal(node_get(table, &key, S_IFDIR, fd), node);
	assert_int_equal(atomic_load(&node->held_fd), held);
	for (int i = 0; i < 3; i++)
		node_put(table, node);
	assert_int_equal(last, 2);
	assert_int_equal(fcntl(held, F_GETFD), -1);
	/* A descriptor that can't be had. */
	assert_null(node_get(table, &key, S_IFDIR, held));
	assert_int_equal(errno, EBADF);
	assert_int_equal(node_table_count(table), 0);
	close(fd);
	node_table_free(table);
}

#define MANY 200000

static void test_grows(void **state)
{
	struct node_table *table = node_table_new();
	struct node **nodes = malloc(MANY * sizeof *nodes);
	size_t before = mallinfo2().uordblks, used;

	(void)state;
	for (uint64_t i = 0; i < MANY; i++) {
		/* As an ext4 handle: inode number and generation. */
		nodes[i] = get(table, (i + 12) | i * 2654435761 << 32);
		node_lookup_add(table, nodes[i]);
	}
	used = (mallinfo2().uordblks - before) / MANY;
	print_message("%zu bytes a node\n", used);
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
	assert_in_range(used, 64, 110);
#endif
	assert_int_equal(node_table_count(table), MANY);
	for (uint64_t i = 0; i < MANY; i++) {
		struct node *node = node_by_id(table, i + 1);

		assert_ptr_equal(node, nodes[i]);
		assert_ptr_equal(node_find(table, &node->key), node);
		node_put(table, node);
		node_put(table, node);
	}
	for (uint64_t i = 0; i < MANY; i++)
		node_lookup_forget(table, i + 1, 1);
	assert_int_equal(node_table_count(table), 0);
	free(nodes);
	node_table_free(table);
}

#define THREADS 4
#define STEPS 20000
#define KEYS 40

/* What the kernel and the journal do: get, look up, use by number, forget. */
static void *hammer(void *context)
{
	struct node_table *table = context;
	uint64_t random = (uint64_t)(uintptr_t)&table | 1, wrong = 0;

	for (int i = 0; i < STEPS; i++) {
		struct node_key key;
		struct node *node, *again;
		uint64_t id;

		random = random * UINT64_C(6364136223846793005) + 1442695040888963407;
		key = key_of(1, random >> 40 & 1 ? (random >> 33) % KEYS : random >> 33);
		node = node_get(table, &key, S_IFREG, -1);
		id = node->nodeid;
		again = node_by_id(table, id);
		wrong += again != node || !node_key_equal(&again->key, &key);
		small_lock_take(&again->lock);
		small_lock_leave(&again->lock);
		node_put(table, again);
		node_lookup_add(table, node);
		again = node_find(table, &key);
		wrong += again != node;
		if (again && random >> 50 & 1)
			node_lookup_add(table, again), node_lookup_forget(table, id, 1);
		else
			node_put(table, again);
		node_lookup_forget(table, id, 1);
		node_put(table, node_by_id(table, id + random % 5));
	}
	return (void *)(uintptr_t)wrong;
}

static void test_threads(void **state)
{
	struct node_table *table = node_table_new();
	pthread_t threads[THREADS];
	void *wrong;

	(void)state;
	for (int i = 0; i < THREADS; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, hammer, table), 0);
	for (int i = 0; i < THREADS; i++) {
		assert_int_equal(pthread_join(threads[i], &wrong), 0);
		assert_null(wrong);
	}
	assert_int_equal(node_table_count(table), 0);
	node_table_free(table);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_identity), cmocka_unit_test(test_lookups), cmocka_unit_test(test_held),
		cmocka_unit_test(test_grows), cmocka_unit_test(test_threads),
	};

	return cmocka_run_group_tests_name("node", tests, NULL, NULL);
}
