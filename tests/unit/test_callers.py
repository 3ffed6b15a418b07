"""Who is an indexer, by what the kernel tells of the caller."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Collection

from awayfs.fuse.callers import Callers, names_of

NAME = "ctypes.CDLL(None).prctl(15, b'tumblerd')"


def test_a_process_and_its_threads() -> None:
    own = names_of(os.getpid())
    assert own and names_of(threading.get_native_id()) == own
    program = f"import ctypes, sys; {NAME}; print(flush=True); sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None and process.stdin is not None
        process.stdout.readline()
        names: list[Collection[str]] = [("tumblerd",)]
        callers = Callers(lambda: names[0])
        assert callers.is_indexer(process.pid) and not callers.is_indexer(os.getpid())
        names[0] = ("other",)  # a new list counts at once
        assert not callers.is_indexer(process.pid)
        process.stdin.close()


def test_who_cannot_be_seen_is_no_indexer() -> None:
    """0 stands for somebody in another namespace, and for the kernel itself."""
    callers = Callers(lambda: ("tumblerd",))
    assert not callers.is_indexer(0)
    assert not callers.is_indexer(2**22 + 1) and names_of(2**22 + 1) == set()
    assert not Callers(tuple).is_indexer(os.getpid())
