"""Commands, daemons and workers of ours without an interpreter that begins anew for each.

Starting Python and importing what a mount needs (a command, a daemon, a worker) takes half a second
of a processor, which was a third of what the whole suite took. Here one process has imported all of
it, and forks. What runs then is the same: the command with its arguments and environment in a
process of its own, the daemon as its child in a session of its own, the worker as the daemon's
child and by the thread that stays; with the descriptors that they are given, and no others.

Left out is how an interpreter begins: that is what commands go through that tests run by
``Client.awayfs`` and ``Client.fails``, ``mount`` among them.
"""

from __future__ import annotations

import atexit
import ctypes
import faulthandler
import gc
import importlib
import json
import logging
import os
import runpy
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import traceback
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NoReturn

from awayfs.volume import fault

IMPORTED = (
    *("cli.main", "cli.mounting", "cli.mountpoint", "cli.spawn", "cli.ending"),
    *("control.urls", "control.credentials", "daemon.main"),
    *("remotes.isolated", "remotes.notices", "remotes.directory", "remotes.sftp"),
)
"""With what these import, it is all that a mount and its end need."""
LIVES = 20
"""Programs that one process forks. They share the order of its sets, so there are to be others."""
LONGEST = 1 << 18
ROOM = " " * 200
"""For the words of the programs in the list of processes."""


class Preforked:
    """Where a test process has its commands run. Started at the first one."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._requests: socket.socket | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._left = 0

    def run(
        self, arguments: Sequence[str], env: Mapping[str, str], timeout: float
    ) -> subprocess.CompletedProcess[str]:
        """``awayfs ARGUMENTS``, as by ``subprocess.run``; raises ``TimeoutExpired``, too."""
        told, status = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with told, tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
            with status:
                self._ask([status.fileno(), out.fileno(), err.fileno()], arguments, env)
            told.settimeout(timeout)
            pid = int(told.recv(32))
            try:
                code = told.recv(32) or b"-9"  # it was killed
            except TimeoutError:
                os.kill(pid, signal.SIGKILL)
                raise subprocess.TimeoutExpired(["awayfs", *arguments], timeout) from None
            texts = []
            for file in (out, err):
                file.seek(0)
                texts.append(file.read().decode(errors="surrogateescape"))
        return subprocess.CompletedProcess(["awayfs", *arguments], int(code), *texts)

    def _ask(self, fds: list[int], arguments: Sequence[str], env: Mapping[str, str]) -> None:
        request = json.dumps({"arguments": list(arguments), "env": dict(env)}).encode()
        with self._lock:
            if self._left == 0:
                self._begin()
            self._left -= 1
            assert self._requests is not None
            socket.send_fds(self._requests, [request], fds)

    def _begin(self) -> None:
        self.end()
        self._requests, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._process = subprocess.Popen(
                [
                    sys.executable,
                    "-c",
                    f"import {__name__} as it; it.serve({theirs.fileno()})",
                    ROOM,
                ],
                stdin=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                cwd=os.path.dirname(os.path.dirname(__file__)),
            )
        self._left = LIVES

    def end(self) -> None:
        """Nothing more is forked; what runs goes on."""
        if self._requests is not None and self._process is not None:
            self._requests.close()
            self._process.wait()
        self._left = 0


preforked = Preforked()
atexit.register(preforked.end)


def serve(requests_fd: int) -> None:
    """In the process that forks: until the test process has closed its end."""
    gc.disable()
    for name in IMPORTED:
        importlib.import_module(f"awayfs.{name}")
    gc.freeze()
    gc.enable()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for them here
    with socket.socket(fileno=requests_fd) as requests:
        while True:
            text, fds, _, _ = socket.recv_fds(requests, LONGEST, 3)
            if not text:
                return
            if os.fork() == 0:
                requests.close()
                _be_a_command(json.loads(text), *fds)
            for fd in fds:
                os.close(fd)


def _be_a_command(request: dict[str, Any], status_fd: int, out: int, err: int) -> NoReturn:
    from awayfs.cli.main import main  # in the process that forks

    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    subprocess.Popen = Forked  # type: ignore[misc]
    os.environ.clear()
    os.environ.update(request["env"])
    os.dup2(out, 1)
    os.dup2(err, 2)
    status = socket.socket(fileno=status_fd)
    status.send(str(os.getpid()).encode())
    sys.argv = ["awayfs", *request["arguments"]]
    code = _code(main)
    status.send(str(code).encode())
    os._exit(code)


PROGRAMS = ("awayfs.daemon", "awayfs.remotes.worker")


def _begin(name: str) -> None:
    """As ``python -m``; what was read from the environment at an import is read anew."""
    importlib.reload(fault)
    if name == "awayfs.remotes.worker":
        name = os.environ.get("AWAYFS_WORKER", name)
    runpy.run_module(name, run_name="__main__", alter_sys=True)


class Forked(subprocess.Popen):  # type: ignore[type-arg]
    """Forks what is imported here already, and starts everything else as usual."""

    def _execute_child(self, args: Any, *how: Any) -> None:
        command = list(args) if isinstance(args, list | tuple) else []
        name = command[command.index("-m") + 1] if "-m" in command[:-1] else ""
        if command[:1] != [sys.executable] or name not in PROGRAMS:
            super()._execute_child(args, *how)  # type: ignore[misc]
            return
        kept, cwd = how[3:5]
        pipes = how[9:15]  # three times an end to read, and one to write
        umask, new_session = how[19:21]
        self.pid = os.fork()
        if self.pid == 0:
            code = 70
            try:
                _take_over(kept, (pipes[0], pipes[3], pipes[5]))
                os.chdir(cwd or ".")
                if new_session:
                    os.setsid()
                if umask >= 0:
                    os.umask(umask)
                sys.argv = [name, *command[command.index(name) + 1 :]]
                _show(command)
                code = _code(lambda: _begin(name))
            finally:
                os._exit(code)
        self._child_created = True
        self._close_pipe_fds(*pipes)  # type: ignore[attr-defined]


def _take_over(kept: Sequence[int], standard: Sequence[int]) -> None:
    """Have these descriptors and no others, and nothing to do with what the parent was about."""
    gc.freeze()  # what it had is not to be closed: not its database, and not what has its number
    signal.set_wakeup_fd(-1)
    faulthandler.disable()
    faulthandler.unregister(signal.SIGUSR2)
    for number in (signal.SIGTERM, signal.SIGUSR2):
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number, fd in enumerate(standard):
        if fd >= 0:
            os.dup2(fd, number)
    for fd in [int(name) for name in os.listdir("/proc/self/fd")]:
        if fd > 2 and fd not in kept:
            try:
                os.close(fd)
            except OSError:
                pass  # the one that listed the directory
    for fd in kept:
        os.set_inheritable(fd, True)
    sys.stdout = os.fdopen(1, "w", errors="surrogateescape", closefd=False)
    sys.stderr = os.fdopen(2, "w", buffering=1, errors="backslashreplace", closefd=False)
    logging.root.handlers.clear()
    logging.root.setLevel(logging.WARNING)


def _show(command: Sequence[str]) -> None:
    """Write these words where the list of processes has a program's (proc_pid_stat(5))."""
    with open("/proc/self/stat") as file:
        start, end = map(int, file.read().rpartition(") ")[2].split()[45:47])
    text = b"".join(os.fsencode(word) + b"\0" for word in command)
    ctypes.memmove(start, text.ljust(end - start, b"\0")[: end - start - 1], end - start - 1)


def _code(program: Callable[[], Any]) -> int:
    """Run a program to its end; its exit status, once its threads and buffers are done, too."""
    try:
        code = program()
    except SystemExit as end:
        code = end.code
    except BaseException:
        traceback.print_exc()
        code = 1
    threading._shutdown()  # type: ignore[attr-defined]
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    return code if isinstance(code, int) else int(code is not None)
