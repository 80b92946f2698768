/* s3_xml: the two XML documents that S3 sends us: results of ListObjectsV2, and errors. A small strict parser for just that much XML:
 * elements, attributes (skipped), text with the five entities and character references. No DTD, no CDATA, no
 * namespaces prefixes; anything else is malformed. Input is hostile. Pure functions, any thread. */
#ifndef YESTER_S3_XML_H
#define YESTER_S3_XML_H

#include "err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct s3_row {
	char *key; /* whole key, decoded */
	uint64_t size;
	int64_t modified_s;
};

struct s3_list {
	struct s3_row *rows;
	size_t count, capacity;
	bool truncated;
	char *token; /* for the next page; NULL: none was given */
};

struct s3_error {
	char code[64]; /* "" if the document has none */
	char message[256];
	char region[64];
};

/* A page of a listing, for s3_list_free. ERR_CORRUPT: not a complete and consistent ListBucketResult; out is then empty. ERR_NOMEM. */
int s3_xml_list(const void *data, size_t length, struct s3_list *out);
void s3_list_free(struct s3_list *list);
/* True when the bytes are an <Error> document, as far as it was needed: it may be cut off behind the code. */
bool s3_xml_error(const void *data, size_t length, struct s3_error *out);

#endif
