/* Any text is either refused with a message of one line, or parsed into a config that keeps the promises of config.h. */
#include "clock.h"
#include "config.h"
#include "when.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t length);

static void require(int ok)
{
	if (!ok)
		abort();
}

static void check(const struct volume_config *config)
{
	require(config->directory && config->directory[0] == '/' && !strstr(config->directory, "//"));
	require(config_check_remote(config->remote, NULL) == 0);
	require(!(config->passphrase_file && config->key_file));
	require(config->interval_ns >= NS_PER_S);
	require(config->pack_size_bytes >= 1 << 20 && config->pack_size_bytes <= 128 << 20);
	require(config->uploads >= 1 && config->uploads <= 64);
	require(config->compression_level >= 1 && config->compression_level <= 19);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t length)
{
	char *text = strndup((const char *)data, length), name[WHEN_NAME_BYTES];
	struct volume_config *config = NULL;
	struct error error = { 0 };
	int64_t seconds;

	require(text != NULL);
	if (config_parse("/x/fuzz.conf", text, &config, &error) == 0)
		check(config);
	else
		require(error.code == ERR_USAGE && error.message[0] && !strpbrk(error.message, "\n\r\x1b"));
	config_free(config);
	if (when_parse(text, 1000000000, &seconds) == WHEN_TIME) {
		int64_t again;

		when_name(name, seconds);
		require(when_is_canonical(name, &again) && again == seconds);
	}
	free(text);
	return 0;
}
