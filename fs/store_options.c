#include "store_options.h"

#include "io.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define OPTIONS 9

struct given { const char *option, *key, *value; };

/* All of them; value is NULL for those that were not given. */
static void list(const struct store_options *store, struct given out[OPTIONS])
{
	const struct given all[OPTIONS] = {
		{ "--endpoint", "endpoint", store->endpoint },
		{ "--region", "region", store->region },
		{ "--profile", "profile", store->profile },
		{ "--addressing", "addressing", store->addressing },
		{ "--allow-http", "allow_http", store->allow_http ? "yes" : NULL },
		{ "--ca-file", "ca_file", store->ca_file },
		{ "--storage-class", "storage_class", store->storage_class },
		{ "--server-side-encryption", "server_side_encryption", store->server_side_encryption },
		{ "--proxy", "proxy", store->proxy },
	};

	memcpy(out, all, sizeof all);
}

/* Mounts run elsewhere than here. */
static int set_path(struct volume_config *config, const struct given *given, struct error *error)
{
	char *real = realpath(given->value, NULL);
	int rc = real ? 0 : error_errno(error, errno, "%s %s", given->option, given->value);

	if (rc == ERR_ABSENT)
		rc = error_set(error, ERR_USAGE, ENOENT, "%s %s: there is no such file", given->option, given->value);
	if (rc == 0)
		rc = config_set(config, given->key, real, error);
	free(real);
	return rc;
}

int store_options_apply(const struct store_options *store, struct volume_config *config, struct error *error)
{
	struct given all[OPTIONS];
	int rc = 0;

	list(store, all);
	for (size_t i = 0; i < OPTIONS && rc == 0; i++) {
		if (!all[i].value)
			continue;
		if (strncmp(config->remote, "s3://", 5) != 0)
			rc = error_set(error, ERR_USAGE, 0, "%s: it is for a remote s3://..., and this one is %s; leave it out", all[i].option,
				       config->remote);
		else if (strcmp(all[i].key, "ca_file") == 0 && all[i].value[0])
			rc = set_path(config, &all[i], error);
		else
			rc = config_set(config, all[i].key, all[i].value, error);
	}
	return rc;
}

int store_options_refuse(const struct store_options *store, const char *config_file, struct error *error)
{
	struct given all[OPTIONS];

	list(store, all);
	for (size_t i = 0; i < OPTIONS; i++)
		if (all[i].value)
			return error_set(error, ERR_USAGE, 0, "%s: it is for a REMOTE; of a volume of this machine, change %s in %s", all[i].option,
					 all[i].key, config_file);
	return 0;
}
