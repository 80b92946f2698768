/* config_internal: what the files of config share. */
#ifndef YESTER_CONFIG_INTERNAL_H
#define YESTER_CONFIG_INTERNAL_H

#include "buf.h"
#include "config.h"

/* The file's text: a header and every key that differs from its default. ERR_USAGE when a value is not allowed. */
int config_format(const struct volume_config *config, struct buf *out, struct error *error);

/* Fresh volume name from ".../NAME.conf". ERR_USAGE, ERR_NOMEM. */
int config_name_of_file(const char *file, char **out, struct error *error);

#endif
