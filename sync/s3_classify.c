#include "s3_classify.h"

#include <string.h>

/* Codes that mean the same whatever the status: https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html, and
 * those of Ceph, MinIO, B2 and R2. */
static const struct {
	const char *code;
	enum s3_verdict verdict;
} known[] = {
	{ "NoSuchKey", S3_ABSENT },
	{ "NoSuchBucket", S3_NO_BUCKET },
	{ "PreconditionFailed", S3_EXISTS },
	{ "RequestTimeTooSkewed", S3_SKEWED },
	{ "AuthorizationHeaderMalformed", S3_REGION },
	{ "PermanentRedirect", S3_REGION },
	{ "TemporaryRedirect", S3_REGION },
	{ "IllegalLocationConstraintException", S3_REGION },
	{ "ExpiredToken", S3_CREDENTIALS },
	{ "ExpiredTokenException", S3_CREDENTIALS },
	{ "InvalidToken", S3_CREDENTIALS },
	{ "TokenRefreshRequired", S3_CREDENTIALS },
	{ "InvalidAccessKeyId", S3_CREDENTIALS },
	{ "SignatureDoesNotMatch", S3_CREDENTIALS },
	{ "AccessDenied", S3_DENIED },
	{ "AllAccessDisabled", S3_DENIED },
	{ "AccountProblem", S3_DENIED },
	{ "NotSignedUp", S3_DENIED },
	{ "QuotaExceeded", S3_DENIED },
	/* The bytes were damaged or lost on the way. */
	{ "BadDigest", S3_RETRY },
	{ "XAmzContentSHA256Mismatch", S3_RETRY },
	{ "IncompleteBody", S3_RETRY },
	{ "RequestTimeout", S3_RETRY },
	{ "SlowDown", S3_RETRY },
	{ "ServiceUnavailable", S3_RETRY },
	{ "InternalError", S3_RETRY },
	{ "OperationAborted", S3_RETRY },
	{ "ConditionalRequestConflict", S3_RETRY },
	{ "TooManyRequests", S3_RETRY },
	{ "RequestLimitExceeded", S3_RETRY },
	{ "Throttling", S3_RETRY },
	{ "ThrottlingException", S3_RETRY },
	{ "NotImplemented", S3_UNSUPPORTED },
};

enum s3_verdict s3_classify(long status, const struct s3_error *error)
{
	for (size_t i = 0; error && i < sizeof known / sizeof known[0]; i++) {
		if (strcmp(error->code, known[i].code) == 0)
			return known[i].verdict;
	}
	if (status >= 200 && status < 300)
		return error ? S3_RETRY : S3_DONE;
	switch (status) {
	case 401:
	case 403:
		return S3_DENIED;
	case 412:
		return S3_EXISTS;
	case 501:
		return S3_UNSUPPORTED;
	case 408:
	case 409:
	case 425:
	case 429:
		return S3_RETRY;
	}
	/* Any other 4xx that is S3's own is final; one without its document comes from something in between. */
	return error && status >= 400 && status < 500 ? S3_FAILED : S3_RETRY;
}
