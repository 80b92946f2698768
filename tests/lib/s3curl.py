#!/usr/bin/env python3
"""A small S3 client for tests, of nothing but Python's library; it has not a line in common with the one under test.

  s3curl.py make-bucket BUCKET          s3curl.py remove-bucket BUCKET   (must be empty)
  s3curl.py list BUCKET [PREFIX]        one "SIZE KEY" a line
  s3curl.py get BUCKET KEY [FILE]       s3curl.py put BUCKET KEY [FILE]  (standard output and input)
  s3curl.py head BUCKET KEY             the answer's headers
  s3curl.py delete BUCKET KEY           s3curl.py empty BUCKET [PREFIX]  deletes every object
  s3curl.py versioning BUCKET           switches versioning on

AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_ENDPOINT_URL and AWS_REGION come from the environment (source DIR/env of
tests/lib/gateway). Exit code 0, 1 (any other answer than 2xx; said on standard error), or 4 (404).
"""
import datetime
import hashlib
import hmac
import http.client
import os
import sys
import urllib.parse
import xml.etree.ElementTree as ElementTree

NS = "{http://s3.amazonaws.com/doc/2006-03-01/}"


def sign(key, text):
    return hmac.new(key, text.encode(), hashlib.sha256).digest()


class S3:
    def __init__(self):
        url = urllib.parse.urlsplit(os.environ["AWS_ENDPOINT_URL"])
        self.host = url.netloc
        kind = http.client.HTTPSConnection if url.scheme == "https" else http.client.HTTPConnection
        self.connection = kind(url.netloc, timeout=60)
        self.access = os.environ["AWS_ACCESS_KEY_ID"]
        self.secret = os.environ["AWS_SECRET_ACCESS_KEY"]
        self.region = os.environ.get("AWS_REGION", "us-east-1")

    def authorization(self, method, path, query, headers, payload, date):
        names = sorted(headers)
        canonical = "\n".join([method, path, query, *(f"{n}:{headers[n]}" for n in names), "", ";".join(names), payload])
        scope = f"{date[:8]}/{self.region}/s3/aws4_request"
        text = f"AWS4-HMAC-SHA256\n{date}\n{scope}\n{hashlib.sha256(canonical.encode()).hexdigest()}"
        key = f"AWS4{self.secret}".encode()
        for part in (date[:8], self.region, "s3", "aws4_request"):
            key = sign(key, part)
        signature = hmac.new(key, text.encode(), hashlib.sha256).hexdigest()
        return f"AWS4-HMAC-SHA256 Credential={self.access}/{scope}, SignedHeaders={';'.join(names)}, Signature={signature}"

    def request(self, method, bucket, key="", query=(), body=b""):
        path = "/" + urllib.parse.quote(bucket + ("/" + key if key else ""), safe="/-_.~")
        text = "&".join(f"{urllib.parse.quote(n, safe='-_.~')}={urllib.parse.quote(v, safe='-_.~')}" for n, v in sorted(query))
        date = datetime.datetime.now(datetime.timezone.utc).strftime("%Y%m%dT%H%M%SZ")
        payload = hashlib.sha256(body).hexdigest()
        headers = {"host": self.host, "x-amz-date": date, "x-amz-content-sha256": payload}
        headers["authorization"] = self.authorization(method, path, text, dict(headers), payload, date)
        self.connection.request(method, path + ("?" + text if text else ""), body=body or None, headers=headers)
        answer = self.connection.getresponse()
        data = answer.read()
        if not 200 <= answer.status < 300:
            print(f"s3curl: {method} {path}: {answer.status} {data[:300].decode('latin-1')}", file=sys.stderr)
            sys.exit(4 if answer.status == 404 else 1)
        return answer, data

    def list(self, bucket, prefix=""):
        token = None
        while True:
            query = [("list-type", "2"), ("prefix", prefix)] + ([("continuation-token", token)] if token else [])
            root = ElementTree.fromstring(self.request("GET", bucket, query=query)[1])
            for row in root.iter(NS + "Contents"):
                yield row.find(NS + "Key").text, int(row.find(NS + "Size").text)
            if root.find(NS + "IsTruncated").text != "true":
                return
            token = root.find(NS + "NextContinuationToken").text


def main(verb, bucket, rest):
    s3 = S3()
    if verb == "make-bucket":
        s3.request("PUT", bucket)
    elif verb == "remove-bucket":
        s3.request("DELETE", bucket)
    elif verb == "list":
        for key, size in s3.list(bucket, *rest[:1]):
            print(size, key)
    elif verb == "get":
        data = s3.request("GET", bucket, rest[0])[1]
        with open(rest[1], "wb") if len(rest) > 1 else sys.stdout.buffer as out:
            out.write(data)
    elif verb == "put":
        with open(rest[1], "rb") if len(rest) > 1 else sys.stdin.buffer as file:
            s3.request("PUT", bucket, rest[0], body=file.read())
    elif verb == "head":
        for name, value in s3.request("HEAD", bucket, rest[0])[0].getheaders():
            print(f"{name.lower()}: {value}")
    elif verb == "delete":
        s3.request("DELETE", bucket, rest[0])
    elif verb == "empty":
        for key, _ in list(s3.list(bucket, *rest[:1])):
            s3.request("DELETE", bucket, key)
    elif verb == "versioning":
        s3.request("PUT", bucket, query=[("versioning", "")],
                   body=b'<VersioningConfiguration xmlns="http://s3.amazonaws.com/doc/2006-03-01/">'
                        b"<Status>Enabled</Status></VersioningConfiguration>")
    else:
        sys.exit(__doc__)


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    main(sys.argv[1], sys.argv[2], sys.argv[3:])
