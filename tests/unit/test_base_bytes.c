#include "bytes.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <string.h>

static void test_integers(void **state)
{
	uint8_t bytes[9] = { 0 };

	(void)state;
	put_u64(bytes + 1, UINT64_C(0x8182838485868788));
	assert_int_equal(bytes[1], 0x88);
	assert_int_equal(bytes[8], 0x81);
	assert_true(get_u64(bytes + 1) == UINT64_C(0x8182838485868788));
	assert_int_equal(get_u32(bytes + 1), 0x85868788);
	assert_int_equal(get_u16(bytes + 1), 0x8788);
	put_u32(bytes, 0xfffefdfc);
	assert_int_equal(get_u32(bytes), 0xfffefdfc);
	put_u16(bytes, 0xfeff);
	assert_int_equal(bytes[0], 0xff);
	assert_int_equal(get_u16(bytes), 0xfeff);
}

static void test_hex(void **state)
{
	uint8_t bytes[4];
	char text[9];

	(void)state;
	hex_encode(text, "\x00\x7f\x80\xff", 4);
	assert_string_equal(text, "007f80ff");
	assert_true(hex_decode(bytes, 4, "007F80fF"));
	assert_memory_equal(bytes, "\x00\x7f\x80\xff", 4);
	assert_true(hex_decode(bytes, 0, ""));
	assert_false(hex_decode(bytes, 4, "007f80f"));
	assert_false(hex_decode(bytes, 4, "007f80ff0"));
	assert_false(hex_decode(bytes, 4, "007f80fg"));
	assert_false(hex_decode(bytes, 4, ""));
	assert_false(hex_decode(bytes, 1, "0 "));
}

/* RFC 4648 section 10, without padding. */
static void test_base32(void **state)
{
	static const char *const vectors[] = { "", "MY", "MZXQ", "MZXW6", "MZXW6YQ", "MZXW6YTB", "MZXW6YTBOI" };
	uint8_t bytes[8];
	char text[16];

	(void)state;
	for (size_t i = 0; i < 7; i++) {
		assert_int_equal(base32_encode(text, "foobar", i), strlen(vectors[i]));
		assert_string_equal(text, vectors[i]);
		assert_true(base32_decode(bytes, i, vectors[i]));
		assert_memory_equal(bytes, "foobar", i);
	}
	assert_true(base32_decode(bytes, 6, " mzxw-6ytb\n-oi "));
	assert_memory_equal(bytes, "foobar", 6);
	assert_false(base32_decode(bytes, 5, "MZXW6YTBOI"));
	assert_false(base32_decode(bytes, 7, "MZXW6YTBOI"));
	assert_false(base32_decode(bytes, 6, "MZXW6YTBO1"));
	assert_false(base32_decode(bytes, 6, "MZXW6YTBOI="));
	assert_false(base32_decode(bytes, 1, "MZ"));  /* padding bits set */
	assert_false(base32_decode(bytes, 1, "MYA")); /* a digit too many */
}

static void test_utf8(void **state)
{
	static const struct { const char *text; size_t length; } cases[] = {
		{ "a", 1 }, { "\x7f", 1 }, { "\xc2\x80", 2 }, { "\xdf\xbf", 2 }, { "\xe0\xa0\x80", 3 }, { "\xed\x9f\xbf", 3 },
		{ "\xef\xbf\xbf", 3 }, { "\xf0\x90\x80\x80", 4 }, { "\xf4\x8f\xbf\xbf", 4 }, { "", 0 }, { "\x80", 0 },
		{ "\xc0\x80", 0 }, { "\xc1\xbf", 0 }, { "\xc2", 0 }, { "\xc2z", 0 }, { "\xe0\x9f\xbf", 0 }, { "\xed\xa0\x80", 0 },
		{ "\xe2\x82", 0 }, { "\xf0\x8f\xbf\xbf", 0 }, { "\xf4\x90\x80\x80", 0 }, { "\xf5\x80\x80\x80", 0 }, { "\xff", 0 },
	};

	(void)state;
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
		assert_int_equal(utf8_length(cases[i].text, strlen(cases[i].text)), cases[i].length);
}

static void test_escape(void **state)
{
	char out[40];

	(void)state;
	assert_int_equal(escape_text(out, sizeof out, "a\n\x1b[31m\x7f\xff\xc2\x9b\xc3\xa9\\"), 32);
	assert_string_equal(out, "a\\x0a\\x1b[31m\\x7f\\xff\\xc2\\x9b\xc3\xa9\\");
	/* Cut between characters. */
	assert_int_equal(escape_text(out, 4, "ab\xc3\xa9"), 2);
	assert_string_equal(out, "ab");
	assert_int_equal(escape_text(out, 5, "ab\xc3\xa9"), 4);
	assert_int_equal(escape_text(out, 5, "a\n"), 1);
	assert_string_equal(out, "a");
	assert_int_equal(escape_text(out, 6, "a\n"), 5);
	assert_int_equal(escape_text(out, 1, "a"), 0);
	assert_string_equal(out, "");
	assert_int_equal(escape_text(NULL, 0, "a"), 0);
}

static void test_reader(void **state)
{
	static const uint8_t bytes[] = { 1, 2, 0, 3, 0, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0, 'x', 'y' };
	struct reader reader = { bytes, bytes + sizeof bytes, false };
	const uint8_t *tail;

	(void)state;
	assert_int_equal(reader_u8(&reader), 1);
	assert_int_equal(reader_u16(&reader), 2);
	assert_int_equal(reader_u32(&reader), 3);
	assert_true(reader_u64(&reader) == 4);
	assert_non_null(reader_bytes(&reader, 0));
	tail = reader_bytes(&reader, 2);
	assert_memory_equal(tail, "xy", 2);
	assert_false(reader.bad);
	assert_int_equal(reader_u8(&reader), 0);
	assert_true(reader.bad);

	reader = (struct reader){ bytes, bytes + 3, false };
	assert_int_equal(reader_u32(&reader), 0);
	assert_true(reader.bad);
	/* Bad is for ever, even for what would fit. */
	assert_int_equal(reader_u8(&reader), 0);
	reader = (struct reader){ bytes, bytes + 3, false };
	assert_null(reader_bytes(&reader, SIZE_MAX));
	assert_true(reader.bad);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_integers), cmocka_unit_test(test_hex),    cmocka_unit_test(test_base32),
		cmocka_unit_test(test_utf8),     cmocka_unit_test(test_escape), cmocka_unit_test(test_reader),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
