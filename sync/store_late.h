/* store_late: a store whose place may not be there yet: a disk that is mounted later. Promise 1: a volume mounts without its remote. */
#ifndef YESTER_STORE_LATE_H
#define YESTER_STORE_LATE_H

#include "store.h"

/* As store_open without `create`, but a place that is absent is no error: each call looks for it again, and is ERR_RETRY until it is there. config must outlive the store. */
int store_late_open(const struct volume_config *config, int tries, struct store **out, struct error *error);

#endif
