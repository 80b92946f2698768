/* credentials: the keys that sign S3 requests, found where the AWS tools look for them, in this order:
 *   1. AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN; not when the volume's config names a profile
 *   2. the section of the profile in AWS_SHARED_CREDENTIALS_FILE (default ~/.aws/credentials), then in AWS_CONFIG_FILE
 *      (default ~/.aws/config). The profile is the config's, else AWS_PROFILE, else "default".
 *
 * The environment is read once, at credentials_new. The files are read when they are needed: at the first use, again while
 * nothing was found, and when the store has refused the keys. Secrets are wiped before their memory is freed, and never
 * logged. */
#ifndef YESTER_CREDENTIALS_H
#define YESTER_CREDENTIALS_H

#include "err.h"

#include <stdint.h>

struct credentials;

struct credential_keys { /* fresh strings, for credential_keys_wipe */
	char *access_key, *secret_key;
	char *session_token; /* NULL: none */
	uint64_t generation; /* grows when they change */
};
void credential_keys_wipe(struct credential_keys *keys);

/* `profile`: the volume's config's, may be NULL. NULL: out of memory. Any thread may use it at any time. */
struct credentials *credentials_new(const char *profile);
void credentials_free(struct credentials *credentials);

/* The present keys. ERR_DENIED: none; the message lists where they were looked for. ERR_NOMEM. May read local files. */
int credentials_get(struct credentials *credentials, struct credential_keys *keys, struct error *error);
/* The store has refused the keys of `generation`: looks again. 0: there are others now. ERR_DENIED: still the same. */
int credentials_renew(struct credentials *credentials, uint64_t generation);
/* The profile's setting "region", "endpoint_url", ... of AWS_CONFIG_FILE, then of the credentials file: a fresh string, or NULL. */
char *credentials_setting(struct credentials *credentials, const char *name);

#endif
