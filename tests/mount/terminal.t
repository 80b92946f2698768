#!/usr/bin/python3 -B
# timeout: 300
"""What a person at a terminal meets: the question for the passphrase, and what gives it up."""
import os
import pty
import re
import signal
import socket
import sys
import termios

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../lib"))
import yt  # noqa: E402

QUESTION = b"Passphrase or recovery key of "


class Terminal:
    """A verb whose controlling terminal is ours."""

    def __init__(self, volume, *words):
        self.shown = b""
        self.pid, self.master = pty.fork()
        if self.pid == 0:
            os.execve(yt.YESTER, [yt.YESTER, *words], dict(volume.env, TERM="xterm", COLUMNS="80"))

    def read(self):
        """False at the end."""
        try:
            more = os.read(self.master, 4096)
        except OSError:  # the other side is closed
            more = b""
        self.shown += more
        return bool(more)

    def until(self, wanted):
        while wanted not in self.shown:
            yt.check(self.read(), f"it ended without {wanted!r}: {self.shown!r}")

    def type(self, keys):
        os.write(self.master, keys)

    def echoes(self):
        return bool(termios.tcgetattr(self.master)[3] & termios.ECHO)

    def end(self):
        """The exit code; negative: the signal."""
        while self.read():
            pass
        echoes = self.echoes()
        _, status = os.waitpid(self.pid, 0)
        os.close(self.master)
        yt.check(echoes, f"the terminal was left mute: {self.shown!r}")
        return os.waitstatus_to_exitcode(status)


def make():
    secret = os.path.join(yt.TMP, "passphrase")
    with open(secret, "w") as file:
        file.write("good words\n")
    os.chmod(secret, 0o600)
    volume = yt.Volume("typed").init("--passphrase-file", secret)
    with open(volume.path("file"), "w") as file:
        file.write("one\n")
    volume.yester("sync", volume.dir)
    return volume


def test_question():
    volume = make()
    copy = os.path.join(yt.TMP, "copy")

    typed = Terminal(volume, "check", volume.remote)
    typed.until(QUESTION)
    yt.check(not typed.echoes(), "what is typed is shown")
    typed.type(b"bad\x15good word\x7fds\n")
    yt.equal(typed.end(), 0, f"exit code of a check: {typed.shown!r}")
    yt.check(b"no damage" in typed.shown and b"good" not in typed.shown, f"check: {typed.shown!r}")

    for keys, code, message in ((b"\n", 3, rb"nothing was typed"), (b"wrong\n", 3, rb"wrong passphrase"),
                                (b"\x03", 130, rb"^yester: \S+: interrupted\r?$"), (b"half\x03", 130, rb": interrupted"),
                                (b"half\x1c", 130, rb": interrupted"), (b"\x04", 3, rb"nothing was typed")):
        for words in (("check", volume.remote), ("clone", volume.remote, copy, "--name", "copy")):
            typed = Terminal(volume, *words)
            typed.until(QUESTION)
            typed.type(keys)
            yt.equal(typed.end(), code, f"exit code of {words[0]} after {keys!r}: {typed.shown!r}")
            yt.check(re.search(message, typed.shown, re.M), f"{words[0]} after {keys!r}: {typed.shown!r}")
            yt.check(not os.path.exists(copy), "a clone that was given up made its directory")

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        typed = Terminal(volume, "check", volume.remote)
        typed.until(QUESTION)
        os.kill(typed.pid, number)
        yt.equal(typed.end(), 128 + number, f"exit code after {number!r}: {typed.shown!r}")
        yt.check(b": interrupted" in typed.shown, f"after {number!r}: {typed.shown!r}")


def test_silent_store():
    """It takes connections, and never answers."""
    volume = yt.Volume("silent", env={"AWS_ACCESS_KEY_ID": "nobody", "AWS_SECRET_ACCESS_KEY": "nothing"})
    os.makedirs(volume.dir, exist_ok=True)
    listener = socket.create_server(("127.0.0.1", 0), backlog=64)
    store = ("--endpoint", f"http://127.0.0.1:{listener.getsockname()[1]}", "--region", "here")
    for words in (("init", volume.dir), ("check",), ("clone",)):
        words = (*words, "s3://bucket/x", *([volume.dir + "-copy"] if words[0] == "clone" else []), *store)
        waiting = Terminal(volume, *words)
        waiting.until(b"waiting for s3://bucket/x, ")
        waiting.type(b"\x03")
        yt.equal(waiting.end(), 130, f"exit code of {words[0]}: {waiting.shown!r}")
        yt.check(b": interrupted" in waiting.shown, f"{words[0]}: {waiting.shown!r}")
    listener.close()


if __name__ == "__main__":
    yt.main(globals())
