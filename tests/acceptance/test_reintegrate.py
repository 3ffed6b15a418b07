"""Eager, lazy and by command only, on real mounts: what is sent, when, and what goes first."""

from __future__ import annotations

import contextlib
import json
import os
import re
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from awayfs.core import flight
from awayfs.core.sending import IDLE_S
from tests.acceptance.test_merge_rules import configure, configured
from tests.acceptance.test_noticing import narrow
from tests.harness import (
    Client,
    SftpServer,
    assert_same_tree,
    eventually,
    mounted,
    needs_fuse,
    tree,
)
from tests.sshd import needs_sshd

pytestmark = [*needs_fuse]

QUIET_S = 1.5
"""Enough for everything to be sent that is going to be sent by itself."""
AT_MOST_ON_THEIR_WAY = flight.FIRST + flight.FEWEST


def write(path: str, data: str = "content\n") -> None:
    with open(path, "w") as file:
        file.write(data)


def names(root: str) -> set[str]:
    """All files and directories below a directory."""
    found = set[str]()
    for place, directories, files in os.walk(root):
        found.update(os.path.relpath(os.path.join(place, one), root) for one in directories + files)
    return {name for name in found if not os.path.basename(name).startswith(".")}


def work(client: Client) -> None:
    """Two directories with files, and one deeper, which is made last."""
    for directory in ("a", "b", "a/deep"):
        os.mkdir(client.path(directory))
        for number in range(3):
            write(client.path(directory, f"f{number}"))


A = {"a", "a/deep", *(f"{place}/f{number}" for place in ("a", "a/deep") for number in range(3))}
B = {"b", "b/f0", "b/f1", "b/f2"}


UNUSED = {name for name in A if "f" in name} - {"a/f1"}


def pending(client: Client) -> dict[str, Any]:
    return dict(client.status()["pending"])


def same(client: Client) -> None:
    """Both sides are; the times of directories are those of the server's own clock."""
    ours, theirs = (
        tree(root, directories_mtime=False) for root in (client.mountpoint, client.server.files)
    )
    assert_same_tree(ours, theirs)


# -- manual -------------------------------------------------------------------------------


def test_by_command_only(tmp_path: Path) -> None:
    with mounted("dir", str(tmp_path), "reintegrate=manual") as client:
        work(client)
        fd = os.open(client.path("b/f0"), os.O_WRONLY)
        os.fsync(fd)  # durable here, which needs no server
        os.close(fd)
        time.sleep(QUIET_S)
        os.listdir(client.path("a"))
        with open(client.path("a/f1")) as file:
            assert file.read() == "content\n"
        time.sleep(QUIET_S)
        assert names(client.server.files) == set()
        status = client.status()
        assert status["mode"] == "connected" and not status["replaying"]
        assert status["pending"]["held"] == status["pending"]["records"] > 0
        said = client.awayfs("status", client.mountpoint)
        assert "wait for 'awayfs sync' (reintegrate=manual)" in said
        assert "wait for awayfs sync" in client.awayfs("why", client.path("a/f1"))

        said = client.awayfs("sync", client.path("a/deep"), "--wait")
        assert "everything is sent; " in said and "wait for 'awayfs sync'" in said
        assert names(client.server.files) == {name for name in A if name.startswith("a/deep")} | {
            "a"
        }
        client.awayfs("sync", client.path("b/f1"))
        eventually(lambda: "b/f1" in names(client.server.files), "one file")
        time.sleep(QUIET_S)
        assert names(client.server.files) & B == {"b", "b/f1"}

        before = time.monotonic()
        client.sync()
        assert time.monotonic() - before < 10, "it waits for nothing"
        assert names(client.server.files) == A | B
        assert pending(client)["records"] == 0
        write(client.path("late"))
        time.sleep(QUIET_S)
        assert "late" not in names(client.server.files), "what came after is another matter"
        assert "wait for 'awayfs sync' at the next mount" in client.umount()

        client.mount("reintegrate=manual")
        time.sleep(QUIET_S)
        assert client.status()["mode"] == "connected" and pending(client)["held"]
        assert "late" not in names(client.server.files)
        client.umount()
        client.mount()
        eventually(lambda: "late" in names(client.server.files), "the default is to send")


def test_what_was_removed_goes_with_its_directory(tmp_path: Path) -> None:
    with mounted("dir", str(tmp_path), "reintegrate=manual") as client:
        work(client)
        client.sync()
        os.rename(client.path("a/f0"), client.path("b/moved"))
        os.unlink(client.path("a/f1"))
        os.unlink(client.path("b/f1"))
        time.sleep(QUIET_S)
        assert names(client.server.files) == A | B
        said = client.fails("sync", client.path("a/f1"))
        assert "no such file or directory; what was removed goes with" in said
        client.awayfs("sync", client.path("a"), "--wait")
        assert names(client.server.files) == (A | B | {"b/moved"}) - {"a/f0", "a/f1"}
        client.sync()
        assert names(client.server.files) == (A | B | {"b/moved"}) - {"a/f0", "a/f1", "b/f1"}


def test_a_rename_above_does_not_hold_back_what_is_in_a_directory(tmp_path: Path) -> None:
    with mounted("dir", str(tmp_path), "reintegrate=manual") as client:
        work(client)
        client.sync()
        os.rename(client.path("a"), client.path("renamed"))
        write(client.path("renamed/f0"), "edited")
        write(client.path("renamed/new"))
        client.awayfs("sync", client.path("renamed/f0"), "--wait")
        assert Path(client.server.files, "a/f0").read_text() == "edited"
        client.awayfs("sync", client.path("renamed/new"), "--wait")
        assert names(client.server.files) == A | B | {"a/new"}
        client.sync()
        same(client)


def test_nothing_is_taken_over_where_changes_are_held_back(tmp_path: Path) -> None:
    """A conflict is found when they are sent, and holds up nothing else."""
    with mounted("dir", str(tmp_path), "reintegrate=manual,fresh=0") as client:
        work(client)
        client.sync()
        for name in ("a/f0", "b/f0"):
            write(client.path(name), "ours\n")
        os.mkdir(client.path("a/made"))
        Path(client.server.files, "a/f0").write_text("theirs, and longer\n")
        Path(client.server.files, "a/theirs").write_text("new\n")
        assert sorted(os.listdir(client.path("a"))) == ["deep", "f0", "f1", "f2", "made", "theirs"]
        assert Path(client.path("a/f0")).read_text() == "ours\n"
        assert "a/made" not in names(client.server.files)
        client.awayfs("sync", client.path("b"), "--wait")
        assert Path(client.server.files, "b/f0").read_text() == "ours\n"
        assert client.conflicts() == []
        said = client.fails("sync", client.path("a"), "--wait")
        assert "1 conflict to decide" in said
        assert [one["path"] for one in client.conflicts()] == ["a/f0"]
        assert Path(client.server.files, "a/f0").read_text() == "theirs, and longer\n"
        assert "a/made" in names(client.server.files)
        client.awayfs("resolve", client.path("a/f0"), "--keep", "local")
        client.sync()
        assert Path(client.server.files, "a/f0").read_text() == "ours\n"


@needs_sshd[0]
def test_what_was_asked_for_goes_on_when_the_server_is_back(tmp_path: Path) -> None:
    with narrow(SftpServer(str(tmp_path)), rate=100_000) as server:
        client = Client(str(tmp_path), server)
        try:
            client.mount("reintegrate=manual")
            os.mkdir(client.path("a"))
            for number in range(12):
                write(client.path("a", f"f{number}"), "x" * 20_000)
            write(client.path("other"))
            client.awayfs("sync", client.path("a"))
            eventually(lambda: len(names(server.files)) > 2, "the first ones")
            server.cut()
            eventually(lambda: client.status()["mode"] == "disconnected", "the cut to be seen")
            assert len(names(server.files)) < 13
            server.restore()
            wanted = {"a", *(f"a/f{number}" for number in range(12))}
            eventually(lambda: wanted <= names(server.files), "the rest of it", timeout=60)
            time.sleep(QUIET_S)
            assert names(server.files) == wanted and pending(client)["held"]
        finally:
            client.close()


@pytest.mark.parametrize("fault", ["replay.staged", "replay.frozen", "replay.acted"])
def test_a_daemon_that_dies_finishes_what_had_gone_out_and_nothing_else(
    tmp_path: Path, fault: str
) -> None:
    with mounted("dir", str(tmp_path)) as client:
        work(client)
        client.sync()
        client.umount()
        client.mount("reintegrate=manual", fault=fault)
        os.rename(client.path("b"), client.path("c"))
        for name in ("a/f0", "a/f1", "c/f0"):
            write(client.path(name), "edited\n")
        client.awayfs("sync", client.path("a/f0"), "--wait", check=False)
        eventually(lambda: not os.path.exists(f"/proc/{client.pid}"), "the daemon's death")
        client.clear()
        client.mount("reintegrate=manual")
        if fault != "replay.staged":  # before, nothing had gone out
            path = Path(client.server.files, "a/f0")
            eventually(lambda: path.read_text() == "edited\n", "what had gone out")
        time.sleep(QUIET_S)
        assert names(client.server.files) == A | B
        assert Path(client.server.files, "a/f1").read_text() == "content\n"
        assert pending(client)["held"] and client.conflicts() == []
        client.sync()
        same(client)
        assert client.conflicts() == []


# -- lazy ---------------------------------------------------------------------------------


@contextlib.contextmanager
def in_use(client: Client) -> Iterator[None]:
    """Some program opens a file again and again; nothing of it is to be sent."""
    ended = threading.Event()

    def use() -> None:
        while not ended.wait(0.3):
            os.close(os.open(client.path("clean"), os.O_RDONLY))

    thread = threading.Thread(target=use)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def test_just_in_time(tmp_path: Path) -> None:
    """What is used goes at once; the rest when nobody uses the mount."""
    with mounted("dir", str(tmp_path), "reintegrate=lazy,learn=off") as client:
        Path(client.server.files, "clean").write_text("known to the server")
        with in_use(client):
            work(client)
            status = client.status()
            assert status["mode"] == "connected" and status["reintegrate"] == "lazy"
            assert "until used" in client.awayfs("status", client.mountpoint)
            with open(client.path("a/f1")) as file:
                file.read()
            eventually(lambda: "a/f1" in names(client.server.files), "what was opened")
            os.listdir(client.path("b"))
            eventually(lambda: names(client.server.files) >= B, "what was listed")
            time.sleep(IDLE_S + 1)
            assert not names(client.server.files) & UNUSED
            assert client.status()["pending"]["held"]
        eventually(lambda: names(client.server.files) >= A | B, "the rest, when it is idle")
        eventually(lambda: pending(client)["records"] == 0, "all of it")
        assert client.status()["mode"] == "connected"
        write(client.path("more"))
        client.sync()
        assert "more" in names(client.server.files)


def test_who_waits_for_the_server_is_not_kept_waiting(tmp_path: Path) -> None:
    with mounted("dir", str(tmp_path), "reintegrate=lazy,writes=close") as client:
        os.mkdir(client.path("d"))
        os.mkdir(client.path("other"))
        before = time.monotonic()
        write(client.path("d/f"))
        assert names(client.server.files) >= {"d", "d/f"}
        assert time.monotonic() - before < 3


# -- eager --------------------------------------------------------------------------------


@needs_sshd[0]
def test_a_subtree_goes_first_over_a_slow_link(tmp_path: Path) -> None:
    with narrow(SftpServer(str(tmp_path)), rate=100_000) as server:
        client = Client(str(tmp_path), server)
        try:
            client.mount()
            assert os.listdir(client.mountpoint) == []  # offline, what was not listed is not known
            client.offline()
            os.makedirs(client.path("long"))
            for number in range(60):
                write(client.path("long", f"f{number}"), "x" * 20_000)
            os.makedirs(client.path("wanted/deep"))
            for number in range(5):
                write(client.path("wanted/deep", f"f{number}"), "y" * 20_000)
            client.online()
            client.awayfs("sync", client.path("wanted"), "--wait")
            sent = names(server.files)
            assert {f"wanted/deep/f{number}" for number in range(5)} <= sent
            others = [name for name in sent if name.startswith("long/")]
            assert len(others) <= AT_MOST_ON_THEIR_WAY, "those before it was asked for"
            client.sync()
            assert len(names(server.files)) == 60 + 5 + 3
        finally:
            client.close()


# -- settings and bad input ---------------------------------------------------------------


def test_the_configuration_sets_it_and_is_obeyed_at_once(tmp_path: Path) -> None:
    with configured("dir", tmp_path, 'reintegrate = "manual"\n') as client:
        write(client.path("f"))
        time.sleep(QUIET_S)
        assert names(client.server.files) == set()
        reply = json.loads(client.awayfs("config", client.mountpoint, "--json"))
        [found] = [one for one in reply["settings"] if one["name"] == "reintegrate"]
        assert (found["text"], found["place"]) == ("manual", "top")
        configure(client, 'reintegrate = "often"\n')
        time.sleep(QUIET_S)
        said = client.awayfs("config", client.mountpoint, check=False)
        reply = json.loads(client.awayfs("config", client.mountpoint, "--json"))
        assert any("reintegrate: is eager, lazy or manual" in line for line in reply["complaints"])
        assert re.search(r"reintegrate +eager", said)
        eventually(lambda: names(client.server.files) == {"f"}, "the default")
        configure(client, 'reintegrate = "manual"\n')
        time.sleep(QUIET_S)
        write(client.path("g"))
        time.sleep(QUIET_S)
        assert names(client.server.files) == {"f"}
        configure(client, 'reintegrate = "eager"\n')
        eventually(lambda: names(client.server.files) == {"f", "g"}, "what was held back")


def test_what_cannot_be_asked_for(tmp_path: Path) -> None:
    with mounted("dir", str(tmp_path), "reintegrate=manual") as client:
        url, other = client.server.url, str(tmp_path / "other")
        os.mkdir(other)
        said = client.fails("mount", url, other, "-o", "reintegrate=sometimes", code=2)
        assert "give eager, lazy or manual" in said
        said = client.fails("mount", url, other, "-o", "reintegrate=manual,writes=close", code=2)
        assert "does not go with -o writes=close" in said
        write(client.path("f"))
        assert "no such file" in client.fails("sync", client.path("none"))
        for path in (".awayfs", ".awayfs/conflicts"):
            assert "is never sent" in client.fails("sync", client.path(path), "--wait")
        assert "not inside an awayfs mount" in client.fails("sync", other)
        assert "not inside an awayfs mount" in client.fails("sync", "/no/such/place")
        assert names(client.server.files) == set()
