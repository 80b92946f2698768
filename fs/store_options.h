/* store_options: how the store is reached, from the words of init, clone and check REMOTE: each option is the config's key of that name (yester.conf(5)). Never credentials. One thread. */
#ifndef YESTER_STORE_OPTIONS_H
#define YESTER_STORE_OPTIONS_H

#include "config.h"
#include "options.h"

struct store_options { /* as given; NULL: not */
	const char *endpoint, *region, *profile, *addressing, *ca_file, *storage_class, *server_side_encryption, *proxy;
	bool allow_http;
};
/* The options, for options_parse. */
#define STORE_OPTION_SPECS(store)                                                                                      \
	{ "endpoint", 0, NULL, &(store)->endpoint }, { "region", 0, NULL, &(store)->region },                          \
	{ "profile", 0, NULL, &(store)->profile }, { "addressing", 0, NULL, &(store)->addressing },                    \
	{ "allow-http", 0, &(store)->allow_http, NULL }, { "ca-file", 0, NULL, &(store)->ca_file },                    \
	{ "storage-class", 0, NULL, &(store)->storage_class },                                                         \
	{ "server-side-encryption", 0, NULL, &(store)->server_side_encryption }, { "proxy", 0, NULL, &(store)->proxy }

/* Puts what was given into config, whose remote is known, in place of what the environment said. A relative --ca-file is of the current directory. ERR_USAGE: a bad value, or the remote is none of
 * s3://; ERR_NOMEM. */
int store_options_apply(const struct store_options *store, struct volume_config *config, struct error *error);
/* ERR_USAGE when one was given for a volume of this machine: its config has them. */
int store_options_refuse(const struct store_options *store, const char *config_file, struct error *error);

#endif
