/* s3_classify: what an S3 server's answer means, decided in one place. Pure functions, any thread. */
#ifndef YESTER_S3_CLASSIFY_H
#define YESTER_S3_CLASSIFY_H

#include "s3_xml.h"

enum s3_verdict {
	S3_DONE,        /* 2xx: the caller looks at what came with it */
	S3_ABSENT,      /* the store itself says that there is no such key */
	S3_EXISTS,      /* the condition of a conditional PUT did not hold */
	S3_RETRY,       /* the server, or something in between, is in trouble */
	S3_SKEWED,      /* our clock differs too much from the server's */
	S3_REGION,      /* signed for, or sent to, another region than the bucket's */
	S3_CREDENTIALS, /* these keys are not accepted (any more) */
	S3_DENIED,      /* the keys are accepted, and may not do this */
	S3_NO_BUCKET,
	S3_UNSUPPORTED, /* the server does not know this request or header */
	S3_FAILED,      /* the same request will fail again */
};

/* `error`: the <Error> document that came with it, or NULL when there was none. A status alone is trusted only where a captive portal
 * or a proxy could not do harm with it: without the document a 404 is S3_RETRY, never S3_ABSENT. With a status of 2xx, an <Error>
 * document still makes it a failure, so pass NULL only if there is none. */
enum s3_verdict s3_classify(long status, const struct s3_error *error);

#endif
