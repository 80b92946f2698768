#include "buf.h"

#include "err.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <string.h>

static void test_append(void **state)
{
	static const uint8_t expected[] = { 'a', 'b', 1, 3, 2, 7, 6, 5, 4, 15, 14, 13, 12, 11, 10, 9, 8 };
	struct buf buf = { 0 };

	(void)state;
	assert_int_equal(buf_append(&buf, NULL, 0), 0);
	assert_int_equal(buf_append(&buf, "ab", 2), 0);
	assert_int_equal(buf_append_u8(&buf, 1), 0);
	assert_int_equal(buf_append_u16(&buf, 0x0203), 0);
	assert_int_equal(buf_append_u32(&buf, 0x04050607), 0);
	assert_int_equal(buf_append_u64(&buf, UINT64_C(0x08090a0b0c0d0e0f)), 0);
	assert_int_equal(buf.length, sizeof expected);
	assert_memory_equal(buf.data, expected, sizeof expected);
	buf_clear(&buf);
	assert_int_equal(buf.length, 0);
	assert_non_null(buf.data);
	buf_free(&buf);
	assert_null(buf.data);
	assert_int_equal(buf.capacity, 0);
	buf_free(&buf);
}

static void test_grow(void **state)
{
	struct buf buf = { 0 };

	(void)state;
	for (unsigned i = 0; i < 100000; i++)
		assert_int_equal(buf_append_u32(&buf, i), 0);
	assert_int_equal(buf.length, 400000);
	assert_int_equal(buf.data[4 * 0x12345], 0x45);
	assert_int_equal(buf.data[4 * 0x12345 + 2], 1);
	buf_wipe(&buf);
	assert_null(buf.data);
}

static void test_too_much(void **state)
{
	struct buf buf = { 0 };
	size_t capacity;

	(void)state;
	assert_int_equal(buf_append_u8(&buf, 9), 0);
	capacity = buf.capacity;
	assert_int_equal(buf_reserve(&buf, SIZE_MAX), ERR_NOMEM);
	assert_int_equal(buf_reserve(&buf, PTRDIFF_MAX), ERR_NOMEM);
	assert_int_equal(buf.capacity, capacity);
	assert_int_equal(buf.length, 1);
	assert_int_equal(buf.data[0], 9);
	buf_free(&buf);
}

static void test_printf(void **state)
{
	struct buf buf = { 0 };
	char big[5000];

	(void)state;
	memset(big, 'x', sizeof big);
	big[sizeof big - 1] = '\0';
	assert_int_equal(buf_printf(&buf, "%d-%s", 42, "z"), 0);
	assert_int_equal(buf.length, 4);
	assert_string_equal((char *)buf.data, "42-z");
	assert_int_equal(buf_printf(&buf, "%s!", big), 0);
	assert_int_equal(buf.length, 4 + sizeof big);
	assert_int_equal(buf.data[buf.length - 1], '!');
	assert_int_equal(buf.data[buf.length], 0);
	buf_free(&buf);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_append),
		cmocka_unit_test(test_grow),
		cmocka_unit_test(test_too_much),
		cmocka_unit_test(test_printf),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
