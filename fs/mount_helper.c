#include "mount_helper.h"

#include "cmd.h"
#include "io.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

bool mount_helper_is_meant(int argc, char **argv)
{
	const char *slash = argc > 0 ? strrchr(argv[0], '/') : NULL, *base = slash ? slash + 1 : argc > 0 ? argv[0] : "";

	if (strcmp(base, "mount.yester") == 0 || strcmp(base, "mount.fuse.yester") == 0)
		return true;
	return argc > 2 && (strchr(argv[1], '/') || argv[1][0] == '.') && argv[1][0] != '-';
}

/* The options that mount(8) gives its helpers. *options: all -o joined, fresh. */
static int read_words(int argc, char **argv, const char **source, const char **place, char **options, bool *fake)
{
	optind = 1;
	opterr = 0;
	for (int letter; (letter = getopt(argc, argv, "sfnvo:t:N:")) != -1; ) {
		char *joined;

		if (letter == '?')
			return -1;
		if (letter == 'f')
			*fake = true;
		if (letter != 'o')
			continue;
		joined = io_printf("%s%s%s", *options ? *options : "", *options ? "," : "", optarg);
		free(*options);
		*options = joined;
		if (!joined)
			return -1;
	}
	if (argc - optind != 2)
		return -1;
	*source = argv[optind];
	*place = argv[optind + 1];
	return 0;
}

int mount_helper(int argc, char **argv, const struct engine_ops *engine)
{
	const char *source, *place;
	char *options = NULL, *words[6];
	bool fake = false;
	int count = 0, code;
	struct error error;

	if (read_words(argc, argv, &source, &place, &options, &fake) < 0) {
		free(options);
		error_set(&error, ERR_USAGE, 0, "mount: the words are not those of mount(8); use yester mount DIR, or yester SOURCE MOUNTPOINT -o OPTIONS");
		return cmd_fail(&error);
	}
	words[count++] = (char *)"mount";
	words[count++] = (char *)source;
	if (strcmp(source, place) != 0)
		words[count++] = (char *)place;
	if (options) {
		words[count++] = (char *)"-o";
		words[count++] = options;
	}
	words[count] = NULL;
	/* -f of mount(8): everything but the mount. */
	code = fake ? 0 : cmd_mount(count, words, engine);
	free(options);
	return code;
}
