"""What tests fork in place of an interpreter that begins anew is the same to the system."""

from __future__ import annotations

import contextlib
import os
import re
import time
from pathlib import Path
from typing import Any

import pytest

from tests.harness import Client, eventually, make_server, needs_fuse
from tests.sshd import descendants

pytestmark = needs_fuse
KEPT = ("Umask", "SigBlk", "SigIgn", "SigCgt")


def facts(pid: int) -> dict[str, Any]:
    """What a process has of the system, without numbers that are others each time."""
    links = [f"/proc/{pid}/fd/{fd}" for fd in os.listdir(f"/proc/{pid}/fd")]
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    words = Path(f"/proc/{pid}/cmdline").read_bytes().rstrip(b"\0").split(b"\0")
    return {
        "words": [re.sub(rb"^\d+$", b"N", word) for word in words],
        "descriptors": sorted(re.sub(r"\d+", "N", os.readlink(link)) for link in links),
        "status": [line for line in lines if line.partition(":")[0] in KEPT],
        "leads": (os.getsid(pid) == pid, os.getpgid(pid) == pid),
        "cwd": os.readlink(f"/proc/{pid}/cwd"),
    }


def at_rest(client: Client) -> list[dict[str, Any]]:
    """The daemon and its worker, once nothing that they do at their start goes on."""
    before: list[dict[str, Any]] = []

    def same() -> bool:
        nonlocal before
        last, before = before, []
        with contextlib.suppress(FileNotFoundError):  # it closes something just now
            before = [facts(pid) for pid in (client.pid, *descendants(client.pid))]
        time.sleep(0.5)
        return bool(before) and last == before

    eventually(lambda: client.status()["mode"] == "connected", "the worker's connection")
    eventually(same, "the end of what is done at a start")
    return before


@pytest.mark.parametrize("kind", ["dir", "sftp"])
def test_a_forked_mount_is_as_one_that_began_anew(kind: str, tmp_path: Path) -> None:
    server = make_server(kind, str(tmp_path))
    client = Client(str(tmp_path), server)
    seen = []
    try:
        client.mount()  # the first has a database to make
        client.umount()
        for client.anew in (False, True):
            client.mount()
            seen.append(at_rest(client))
            client.umount()
    finally:
        client.close()
        server.close()
    for forked, anew in zip(*seen, strict=True):
        differing = {what for what in anew if forked[what] != anew[what]}
        assert not differing, [(forked[what], anew[what]) for what in differing]


def test_a_command_that_fails_says_so(tmp_path: Path) -> None:
    """And a daemon that dies of a fault is dead."""
    client = Client(str(tmp_path), make_server("dir", str(tmp_path)))
    try:
        with pytest.raises(AssertionError, match="gave 1"):
            client.umount()
        client.mount(fault="journal.appended")
        with pytest.raises(OSError):
            Path(client.path("f")).write_bytes(b"")
    finally:
        client.close()
