#!/usr/bin/env python3
"""A reverse proxy in front of a test's S3 server: passes bytes through, logs each request, and does harm on demand.

  proxy.py start DIR TARGET [PEM]   TARGET: http://127.0.0.1:PORT. Returns when the proxy listens; DIR/url holds its URL.
                                With a file that holds a key and a certificate it speaks TLS.
  proxy.py stop DIR
  proxy.py set DIR MODE [OPTION...]
  proxy.py count DIR [METHOD]   requests that the server answered, or tried to, so far (of this method)
  proxy.py reset DIR            empties the log

DIR/control is read at each request: a mode, and options that say which requests it concerns; all others pass.
  pass           500 502 503    answered so, without asking the server
  403            an <Error> AccessDenied
  expired=KEY    400 ExpiredToken unless signed with access key KEY
  region=NAME    400 AuthorizationHeaderMalformed unless signed for region NAME
  redirect=NAME  301 with x-amz-bucket-region, unless signed for region NAME
  reset          the connection is reset
  refuse         new connections are reset too, before anything is read
  stall          never answered, until the mode is another one or the client gives up
  drop-answer    the server gets it, and its answer is thrown away
  truncate       half of the answer's body, then the connection is closed
  html           200 and a web page
  error-in-200   200 and an <Error> InternalError
  repeat-token   the first page of a listing, for ever
  method=PUT     only this method          match=TEXT  only URLs with this text
  first=N        only the first N of them  after=N     not the first N of them (counted since the control file was written)
  percent=P      each with this probability

DIR/log has one line a request: method, path with query, status (0: none), bytes of its body, bytes of the answer's body, mode.
"""
import os
import random
import signal
import socket
import ssl
import struct
import subprocess
import sys
import threading
import time

CHUNK = 1 << 16
HEAD_MAX = 1 << 16


class Closed(Exception):
    """The other side went away, or sent what is not HTTP."""


class Stream:
    """A socket with a buffer in front of it, for reading HTTP."""

    def __init__(self, sock):
        self.sock = sock
        self.buffer = b""

    def more(self):
        data = self.sock.recv(CHUNK)
        if not data:
            raise Closed()
        self.buffer += data

    def head(self):
        """The bytes of a message's head, with the blank line."""
        while b"\r\n\r\n" not in self.buffer:
            if len(self.buffer) > HEAD_MAX:
                raise Closed()
            self.more()
        head, self.buffer = self.buffer.split(b"\r\n\r\n", 1)
        return head + b"\r\n\r\n"

    def line(self):
        while b"\r\n" not in self.buffer:
            self.more()
        line, self.buffer = self.buffer.split(b"\r\n", 1)
        return line + b"\r\n"

    def some(self, limit):
        if not self.buffer:
            self.more()
        data, self.buffer = self.buffer[:limit], self.buffer[limit:]
        return data

    def body(self, head, has_body=True):
        """The pieces of a body as (bytes on the wire, bytes of content)."""
        if not has_body:
            return
        if header(head, "transfer-encoding").lower() == "chunked":
            while True:
                line = self.line()
                size = int(line.split(b";")[0], 16)
                yield line, 0
                left = size
                while left:
                    data = self.some(left)
                    left -= len(data)
                    yield data, len(data)
                yield self.line(), 0
                if size == 0:
                    return
        elif header(head, "content-length"):
            left = int(header(head, "content-length"))
            while left:
                data = self.some(left)
                left -= len(data)
                yield data, len(data)
        elif head.startswith(b"HTTP/"):
            try:
                while True:
                    data = self.some(CHUNK)
                    yield data, len(data)
            except Closed:
                return


def header(head, name):
    for line in head.split(b"\r\n")[1:]:
        key, _, value = line.partition(b":")
        if key.decode("latin-1").strip().lower() == name:
            return value.decode("latin-1").strip()
    return ""


def with_reset(sock):
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


class Proxy:
    def __init__(self, directory, target, pem=None):
        self.directory = directory
        self.target = target
        self.tls = None
        if pem:
            self.tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self.tls.load_cert_chain(pem)
        self.lock = threading.Lock()
        self.control_id = None
        self.matched = 0
        self.page = None

    # ---- what to do

    def path(self, name):
        return os.path.join(self.directory, name)

    def control(self):
        """The words of the control file, and what tells one writing of it from the next."""
        try:
            with open(self.path("control")) as file:
                st = os.fstat(file.fileno())
                return file.read().split() or ["pass"], (st.st_ino, st.st_mtime_ns)
        except FileNotFoundError:
            return ["pass"], None

    def mode_for(self, method, url):
        words, identity = self.control()
        options = dict(word.split("=", 1) for word in words[1:])
        if options.get("method", method) != method or options.get("match", "") not in url:
            return "pass"
        with self.lock:
            if identity != self.control_id:
                self.control_id, self.matched, self.page = identity, 0, None
            self.matched += 1
            number = self.matched
        if number > int(options.get("first", number)) or number <= int(options.get("after", 0)):
            return "pass"
        if random.random() * 100 >= float(options.get("percent", 100)):
            return "pass"
        return words[0]

    def log(self, method, url, status, up, down, mode):
        line = f"{method} {url} {status} {up} {down} {mode}\n".encode("utf-8", "replace")
        fd = os.open(self.path("log"), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            os.write(fd, line)
        finally:
            os.close(fd)

    # ---- answers of our own

    @staticmethod
    def answer(status, body, content_type="application/xml", extra=""):
        head = (f"HTTP/1.1 {status} Injected\r\nContent-Type: {content_type}\r\nContent-Length: {len(body)}\r\n"
                f"Date: {time.strftime('%a, %d %b %Y %H:%M:%S GMT', time.gmtime())}\r\n{extra}\r\n")
        return head.encode() + body.encode()

    @staticmethod
    def error(code, extra=""):
        return f'<?xml version="1.0" encoding="UTF-8"?><Error><Code>{code}</Code><Message>injected</Message>{extra}</Error>'

    def injected(self, mode, head):
        """(status, bytes) of an answer without the server, or None."""
        name, _, value = mode.partition("=")
        scope = header(head, "authorization").partition("Credential=")[2].split("/")
        region = scope[2] if len(scope) > 2 else ""
        access_key = scope[0]
        if mode in ("500", "502"):
            return int(mode), self.answer(mode, "<html>trouble</html>", "text/html")
        if mode == "503":
            return 503, self.answer(503, self.error("SlowDown"))
        if mode == "403":
            return 403, self.answer(403, self.error("AccessDenied"))
        if name == "expired" and access_key != value:
            return 400, self.answer(400, self.error("ExpiredToken"))
        if name == "region" and region != value:
            return 400, self.answer(400, self.error("AuthorizationHeaderMalformed", f"<Region>{value}</Region>"))
        if name == "redirect" and region != value:
            return 301, self.answer(301, self.error("PermanentRedirect"),
                                    extra=f"x-amz-bucket-region: {value}\r\nLocation: http://127.0.0.1:1/\r\n")
        if mode == "html":
            return 200, self.answer(200, "<html><body>Welcome to the hotel's network.</body></html>", "text/html")
        if mode == "error-in-200":
            return 200, self.answer(200, self.error("InternalError"))
        return None

    # ---- one connection

    def serve(self, sock):
        upstream = None
        try:
            if self.tls:
                sock = self.tls.wrap_socket(sock, server_side=True)
            client = Stream(sock)
            if self.control()[0][0] == "refuse":
                with_reset(sock)
                return
            while True:
                upstream = self.request(client, upstream)
        except (Closed, OSError, ValueError):
            pass
        finally:
            sock.close()
            if upstream:
                upstream.sock.close()

    def wait_out_stall(self, sock):
        """Until the mode changes or the client hangs up."""
        _, identity = self.control()
        sock.settimeout(0.1)
        while self.control()[1] == identity:
            try:
                if not sock.recv(CHUNK):
                    break
            except socket.timeout:
                pass  # the poll of a loop that ends with the mode
        raise Closed()

    def request(self, client, upstream):
        head = client.head()
        method, url = head.split(b"\r\n", 1)[0].decode("latin-1").split(" ")[:2]
        mode = self.mode_for(method, url)
        if mode in ("reset", "refuse"):
            with_reset(client.sock)
            self.log(method, url, 0, 0, 0, mode)
            raise Closed()
        if mode == "stall":
            self.log(method, url, 0, 0, 0, mode)
            self.wait_out_stall(client.sock)
        own = self.injected(mode, head)
        if own:
            if header(head, "expect"):
                client.sock.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
            up = sum(length for _, length in client.body(head))
            self.log(method, url, own[0], up, 0, mode)
            client.sock.sendall(own[1])
            return upstream
        return self.forward(client, upstream, head, method, url, mode)

    def send_upstream(self, client, upstream, head):
        """The request to the server; (upstream, head of the answer, bytes of the body)."""
        up = 0
        upstream.sock.sendall(head)
        if header(head, "expect"):
            first = upstream.head()
            if not first.split(b" ", 2)[1].startswith(b"1"):
                return first, 0
            client.sock.sendall(first)
        try:
            for wire, length in client.body(head):
                upstream.sock.sendall(wire)
                up += length
        except (BrokenPipeError, ConnectionResetError):
            pass  # it has answered before it had read everything
        first = upstream.head()
        while first.split(b" ", 2)[1].startswith(b"1"):
            first = upstream.head()
        return first, up

    def forward(self, client, upstream, head, method, url, mode):
        fresh = upstream is None
        if fresh:
            upstream = Stream(socket.create_connection(self.target))
            upstream.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            answer, up = self.send_upstream(client, upstream, head)
        except (Closed, OSError):
            self.log(method, url, 0, 0, 0, mode)
            upstream.sock.close()
            raise Closed() from None
        status = int(answer.split(b" ", 2)[1])
        has_body = method != "HEAD" and status not in (204, 304)
        if mode == "repeat-token" and status == 200:
            return self.repeat(client, upstream, answer, method, url)
        length = int(header(answer, "content-length") or 0)
        down = 0
        if mode != "drop-answer":
            client.sock.sendall(answer)
        for wire, count in upstream.body(answer, has_body):
            if mode == "truncate" and down + count > length // 2:
                client.sock.sendall(wire[: length // 2 - down])
                down = length // 2
                break
            if mode != "drop-answer":
                client.sock.sendall(wire)
            down += count
        self.log(method, url, status, up, down, mode)
        if mode in ("drop-answer", "truncate") or header(answer, "connection").lower() == "close":
            upstream.sock.close()
            raise Closed()
        return upstream

    def repeat(self, client, upstream, answer, method, url):
        """The first listing that came by, again and again."""
        body = b"".join(wire for wire, length in upstream.body(answer) if length)
        with self.lock:
            if self.page is None:
                self.page = body
            body = self.page
        self.log(method, url, 200, 0, len(body), "repeat-token")
        client.sock.sendall(self.answer(200, body.decode()))
        return upstream


def run(directory, target, pem=None):
    host, port = target.removeprefix("http://").rstrip("/").split(":")
    proxy = Proxy(directory, (host, int(port)), pem)
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen(256)
    with open(os.path.join(directory, "url.new"), "w") as file:
        file.write(f"{'https' if pem else 'http'}://127.0.0.1:{listener.getsockname()[1]}\n")
    os.rename(os.path.join(directory, "url.new"), os.path.join(directory, "url"))
    print("ready", flush=True)
    while True:
        sock, _ = listener.accept()
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        threading.Thread(target=proxy.serve, args=(sock,), daemon=True).start()


def start(directory, *arguments):
    os.makedirs(directory, exist_ok=True)
    with open(os.path.join(directory, "out"), "w") as errors:
        child = subprocess.Popen([sys.executable, __file__, "run", directory, *arguments], stdin=subprocess.DEVNULL,
                                 stdout=subprocess.PIPE, stderr=errors, start_new_session=True)
    if child.stdout.readline() != b"ready\n":
        sys.exit(f"proxy.py: did not start; see {directory}/out")
    with open(os.path.join(directory, "pid"), "w") as file:
        file.write(str(child.pid))


def stop(directory):
    try:
        with open(os.path.join(directory, "pid")) as file:
            pid = int(file.read())
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            ours = os.fsencode(directory) in file.read().split(b"\0")
        if ours:
            os.kill(pid, signal.SIGKILL)
        os.unlink(os.path.join(directory, "pid"))
    except (FileNotFoundError, ProcessLookupError, ValueError):
        pass


def set_mode(directory, words):
    path = os.path.join(directory, "control")
    with open(path + ".new", "w") as file:
        file.write(" ".join(words) + "\n")
    os.rename(path + ".new", path)


def count(directory, method):
    try:
        with open(os.path.join(directory, "log")) as file:
            return sum(1 for line in file if not method or line.split(" ", 1)[0] == method)
    except FileNotFoundError:
        return 0


def main(arguments):
    if len(arguments) < 2:
        sys.exit(__doc__)
    verb, directory, rest = arguments[0], arguments[1], arguments[2:]
    if verb == "start" and len(rest) in (1, 2):
        start(directory, *rest)
    elif verb == "run" and len(rest) in (1, 2):
        run(directory, *rest)
    elif verb == "stop":
        stop(directory)
    elif verb == "set" and rest:
        set_mode(directory, rest)
    elif verb == "count":
        print(count(directory, rest[0] if rest else None))
    elif verb == "reset":
        open(os.path.join(directory, "log"), "w").close()
    else:
        sys.exit(__doc__)


if __name__ == "__main__":
    main(sys.argv[1:])
