"""Starting a daemon and waiting, for a bounded time, until its mount can be used."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import time
from dataclasses import replace
from typing import NoReturn

from awayfs.cli import show
from awayfs.cli.ask import Failed
from awayfs.control import paths
from awayfs.control.handshake import COMMAND, StartRequest
from awayfs.control.messages import ControlError, decode, text_of

_WANTED = {"password-required": "password", "passphrase-required": "passphrase"}
"""Errors of a daemon that a person can help with, and what is to be asked for."""
READY_WITHIN = 60.0
"""Seconds until a daemon that says nothing is ended again."""


class LoginNeeded(Failed):
    """The server wants a password, or a key its passphrase; ``wants`` says which."""

    def __init__(self, message: str, wants: str) -> None:
        super().__init__(message)
        self.wants = wants


def in_foreground(request: StartRequest) -> NoReturn:
    """Become the daemon; the request waits in a pipe as standard input."""
    paths.ensure_runtime()
    paths.ensure_volume(request.volume)
    reader, writer = os.pipe()
    os.write(writer, replace(request, foreground=True, ready_fd=None).encode())
    os.close(writer)
    os.dup2(reader, 0)
    os.close(reader)
    os.execv(sys.executable, [sys.executable, *COMMAND])  # noqa: S606  (no shell is meant)


def in_background(request: StartRequest, ready_within: float = READY_WITHIN) -> str:
    """Start a daemon that outlives us; its mode once the mount can be used."""
    paths.ensure_runtime()
    log_path = os.path.join(paths.ensure_volume(request.volume), "daemon.log")
    reader, writer = os.pipe()
    try:
        try:
            child, logged = _launch(replace(request, foreground=False, ready_fd=writer), log_path)
        finally:
            os.close(writer)
        line = _line(child, reader, ready_within)
    finally:
        os.close(reader)
    shown = text_of(request.mountpoint)
    if line is None:
        raise Failed(f"{shown}: not ready after {ready_within:g} s and ended; see {log_path}")
    return _mode(shown, line, log_path, logged)


def _launch(request: StartRequest, log_path: str) -> tuple[subprocess.Popen[bytes], int]:
    """Run the daemon and tell it what to mount; also where its part of the log begins."""
    with open(os.open(log_path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "wb") as log:
        logged = log.seek(0, os.SEEK_END)
        assert request.ready_fd is not None
        child = subprocess.Popen(
            [sys.executable, *COMMAND],
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=log,
            pass_fds=(request.ready_fd,),
            start_new_session=True,
            umask=0o077,
        )
    assert child.stdin is not None
    try:
        child.stdin.write(request.encode())
        child.stdin.close()
    except BrokenPipeError:
        pass  # it died at once; the ready pipe and the log tell
    return child, logged


def _line(child: subprocess.Popen[bytes], reader: int, within: float) -> bytes | None:
    """What the daemon reports: a line, nothing when it died, None when time ran out."""
    deadline = time.monotonic() + within
    line = b""
    try:
        while not line.endswith(b"\n"):
            if not select.select([reader], [], [], max(deadline - time.monotonic(), 0))[0]:
                _end(child)
                return None
            more = os.read(reader, 65536)
            if not more:
                break
            line += more
    except KeyboardInterrupt:
        _end(child)
        raise
    return line


def _end(child: subprocess.Popen[bytes]) -> None:
    """End the daemon: gently, so that it can unmount, then by force with its workers."""
    child.terminate()
    try:
        child.wait(5)
    except subprocess.TimeoutExpired:
        os.killpg(child.pid, signal.SIGKILL)  # it leads its own session
        child.wait()


def _mode(shown: str, line: bytes, log_path: str, logged: int) -> str:
    if not line:
        raise Failed(f"{shown}: the daemon died: {_last_words(log_path, logged)}; see {log_path}")
    try:
        report = decode(line)
    except ControlError:
        raise Failed(f"{shown}: the daemon's report is not understood; see {log_path}") from None
    if "error" in report:
        wants = _WANTED.get(str(report.get("kind", "")))
        message = f"{shown}: {report['error']}"
        raise LoginNeeded(message, wants) if wants else Failed(message)
    if report.get("note"):
        show.complain(f"{shown}: {report['note']}")
    return str(report.get("mode", "connected"))


def _last_words(log_path: str, logged: int) -> str:
    """The last line that this daemon logged."""
    with open(log_path, "rb") as log:
        log.seek(max(logged, os.fstat(log.fileno()).st_size - 4096))
        lines = [line for line in log.read().splitlines() if line.strip()]
    return text_of(lines[-1].strip()) if lines else "it said nothing"
