/* restore_version: which version is meant, and what the path was in it. */
#ifndef YESTER_RESTORE_VERSION_H
#define YESTER_RESTORE_VERSION_H

#include "catalogue.h"
#include "volume.h"

struct restore_version {
	struct version_row row;
	int64_t ino; /* of the path in that version */
};

/* `at`: as people write times (when.h). Messages name `shown`. ERR_USAGE: no time. ERR_ABSENT: history begins later, or the path did not exist then: the
 * message names the nearest version that has it. */
int restore_version_find(struct volume *volume, const char *at, const char *inside, const char *shown,
			 struct restore_version *out, struct error *error);
/* Canonical name of a version, "" when there is none such. */
void restore_version_name(struct volume *volume, int64_t seq, char out[40]);

#endif
