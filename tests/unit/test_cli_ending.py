"""Waiting for the end of a daemon, with processes that end as daemons do, or do not."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from awayfs.cli import ending
from awayfs.cli.ask import Failed
from awayfs.control import mounts, paths
from awayfs.control.client import MountInfo

DAEMON = """
import sys, time
from awayfs.control import mounts
mounts.announce("v", "dir:/x", b"/m")
print("up", flush=True)
until = time.monotonic() + float(sys.argv[1])
while time.monotonic() < until:
    pass
time.sleep(float(sys.argv[2]))
mounts.withdraw("v")
"""
QUIET, LONG = "0", "60"


@pytest.fixture
def start(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Starts what works for so many seconds, sleeps for so many, and lets go of the volume."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "s"))
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    monkeypatch.setattr(ending, "_TOLD_AFTER", 0.3)
    monkeypatch.setattr(ending, "_IDLE_FOR", 1.0)
    children = []

    def started(busy: str, asleep: str) -> tuple[subprocess.Popen[bytes], MountInfo]:
        command = [sys.executable, "-c", DAEMON, busy, asleep]
        child = subprocess.Popen(command, stdout=subprocess.PIPE)
        children.append(child)
        assert child.stdout is not None and child.stdout.readline() == b"up\n"
        place = (b"/m", child.pid, 0, paths.socket_file("v"))
        return child, MountInfo("v", "dir:/x", *place, running=False, mounted=False)

    yield started
    for child in children:
        child.kill()
        child.wait()
        assert child.stdout is not None
        child.stdout.close()


def test_what_works_is_waited_for(start: Any, capsys: pytest.CaptureFixture[str]) -> None:
    _, mount = start("3", QUIET)
    ending.until_ended(mount)
    assert not mounts.is_described(mount)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("awayfs: /m: unmounted;")


def test_who_is_quick_gives_no_reason_to_speak(
    start: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    _, mount = start(QUIET, "0.1")
    ending.until_ended(mount)
    assert not mounts.is_described(mount)
    assert capsys.readouterr().err == ""


def test_what_does_nothing_is_not_waited_for(start: Any) -> None:
    child, mount = start(QUIET, LONG)
    with pytest.raises(Failed, match=rf"\(process {child.pid}\) does not end"):
        ending.until_ended(mount)


def test_a_death_on_the_way_is_told(start: Any) -> None:
    child, mount = start(LONG, QUIET)
    threading.Timer(0.5, child.send_signal, (signal.SIGKILL,)).start()
    with pytest.raises(Failed, match="died on the way"):
        ending.until_ended(mount)


def test_a_later_mount_is_none_of_ours(start: Any) -> None:
    """It was mounted again at once, by somebody else: the first daemon has ended well."""
    first, mount = start(QUIET, QUIET)
    first.wait()
    start(QUIET, LONG)
    ending.until_ended(mount)


def test_a_thread_that_waits_for_the_disk_is_seen(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not ending.waits_for_disk(os.getpid())
    shown = {"/proc/7/task/7/stat": b"7 (a) S b) S 1 7", "/proc/7/task/8/stat": b"8 (a) D 1 7"}
    monkeypatch.setattr(os, "listdir", lambda _path: ["7", "8", "9"])
    monkeypatch.setattr(ending, "_read", lambda path: shown.get(path, b""))
    assert ending.waits_for_disk(7)
    shown["/proc/7/task/8/stat"] = b"8 (D) S 1 7"
    assert not ending.waits_for_disk(7)
