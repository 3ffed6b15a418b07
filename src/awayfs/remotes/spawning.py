"""Starting a worker process, which ends with the daemon that started it."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

COMMAND = (sys.executable, "-m", os.environ.get("AWAYFS_WORKER", "awayfs.remotes.worker"))
"""How a worker is started; a test may name ``awayfs.testing.faulty`` instead."""

# PR_SET_PDEATHSIG fires when the *thread* that started the worker ends, so that thread must
# stay: it is this one, for all workers. Starting a process takes some milliseconds, which the
# event loop has better uses for.
_starter = ThreadPoolExecutor(1, "worker-starter")


def spawn(command: Sequence[str], sock: socket.socket) -> asyncio.Future[subprocess.Popen[bytes]]:
    """Start a worker with its end of the socket, which is closed here."""
    return asyncio.get_running_loop().run_in_executor(_starter, _spawn, command, sock)


def _spawn(command: Sequence[str], sock: socket.socket) -> subprocess.Popen[bytes]:
    """Start a worker with its end of the socket; by exec, so that it shares nothing else."""
    with sock:
        return subprocess.Popen(
            [*command, "--socket", str(sock.fileno())],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            pass_fds=[sock.fileno()],
            cwd="/",
        )
