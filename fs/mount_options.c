#include "mount_options.h"

#include <errno.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

/* Ours, and those that say how to treat set-id and device files. */
static const struct flag_option {
	const char *name;
	size_t flag;
} flags[] = {
	{"take_over", offsetof(struct mount_options, take_over)},
	{"accept_loss", offsetof(struct mount_options, accept_loss)},
	{"adopt", offsetof(struct mount_options, adopt)},
	{"exclusive", offsetof(struct mount_options, exclusive)},
	{"snapdir=visible", offsetof(struct mount_options, snapdir_visible)},
	{"no_passthrough", offsetof(struct mount_options, no_passthrough)},
	{"allow_other", offsetof(struct mount_options, allow_other)},
	{"ro", offsetof(struct mount_options, read_only)},
	{"suid", offsetof(struct mount_options, suid)},
	{"nosuid", offsetof(struct mount_options, nosuid)},
	{"dev", offsetof(struct mount_options, dev)},
	{"nodev", offsetof(struct mount_options, nodev)},
	{"exec", offsetof(struct mount_options, exec)},
	{"noexec", offsetof(struct mount_options, noexec)},
};

static const char *const kernel[] = {"noatime", "atime", "nodiratime", "diratime", "sync", "async", "dirsync"};

/* The business of mount(8), fstab and systemd, or what is so anyway. */
static const char *const ignored[] = {
	"rw",	   "defaults", "auto",	   "noauto",	"nofail",   "_netdev",	     "user",	       "nouser",
	"users",   "owner",    "group",	   "relatime",	"norelatime", "strictatime", "nostrictatime", "lazytime",
	"nolazytime", "silent", "loud",	   "default_permissions", "snapdir=hidden", "mand", "nomand", "iversion", "noiversion",
};

static bool listed(const char *const *list, size_t count, const char *option)
{
	for (size_t i = 0; i < count; i++)
		if (strcmp(list[i], option) == 0)
			return true;
	return false;
}
#define LISTED(list, option) listed(list, sizeof(list) / sizeof(*(list)), option)

static bool has_prefix(const char *text, const char *prefix)
{
	return strncmp(text, prefix, strlen(prefix)) == 0;
}

static int take(const char *option, struct mount_options *out, struct error *error)
{
	for (size_t i = 0; i < sizeof(flags) / sizeof(*flags); i++) {
		if (strcmp(flags[i].name, option) == 0) {
			*(bool *)((char *)out + flags[i].flag) = true;
			return 0;
		}
	}
	if (LISTED(kernel, option))
		return buf_printf(&out->kernel, ",%s", option) < 0 ? error_set(error, ERR_NOMEM, ENOMEM, "out of memory") : 0;
	if (!*option || LISTED(ignored, option) || has_prefix(option, "x-") || has_prefix(option, "X-") ||
	    has_prefix(option, "comment=") || has_prefix(option, "user="))
		return 0;
	if (has_prefix(option, "snapdir="))
		return error_set(error, ERR_USAGE, 0, "mount option %s: snapdir is visible or hidden", option);
	return error_set(error, ERR_USAGE, 0,
			 "mount option %s: there is no such option; yester has take_over, accept_loss, adopt, exclusive, snapdir=visible, no_passthrough", option);
}

int mount_options_parse(const char *list, struct mount_options *out, struct error *error)
{
	char *copy = strdup(list), *rest = copy, *option;
	int rc = copy ? 0 : error_set(error, ERR_NOMEM, ENOMEM, "out of memory");
	while (rc == 0 && (option = strsep(&rest, ",")))
		rc = take(option, out, error);
	free(copy);
	return rc;
}
