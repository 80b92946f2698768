/* Any bytes are either refused or a listing that keeps the promises of s3_xml.h. */
#include "s3_classify.h"
#include "s3_xml.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t length);

static void require(int ok)
{
	if (!ok)
		abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t length)
{
	struct s3_list list;
	struct s3_error error;
	int rc = s3_xml_list(data, length, &list);

	require(rc == 0 || rc == ERR_CORRUPT);
	require(rc == 0 || (list.count == 0 && !list.rows && !list.token));
	require(!list.truncated || (list.token && list.token[0]));
	for (size_t i = 0; i < list.count; i++)
		require(list.rows[i].key != NULL);
	s3_list_free(&list);
	if (s3_xml_error(data, length, &error)) {
		require(error.code[0] && memchr(error.code, '\0', sizeof error.code));
		require(memchr(error.message, '\0', sizeof error.message) && memchr(error.region, '\0', sizeof error.region));
		require(s3_classify(200, &error) != S3_DONE);
	}
	return 0;
}
