"""Hoard walks on real mounts: what the check says is what can be read offline."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Iterator

import pytest

from tests.harness import Client, eventually, mounted, needs_fuse, run
from tests.sshd import needs_sshd

pytestmark = needs_fuse

BOTH = [pytest.param("dir"), pytest.param("sftp", marks=needs_sshd)]


@pytest.fixture(params=BOTH)
def client(request: pytest.FixtureRequest, tmp_path: object) -> Iterator[Client]:
    with mounted(request.param, str(tmp_path)) as one:
        yield one


def make_tree(root: str, files: int, large: int = 0) -> None:
    """``files`` small files in some directories, one of them deep, and one large one."""
    for number in range(files):
        directory = f"{root}/d{number % 7}" + "/deep/er" * (number % 7 == 3)
        os.makedirs(directory, exist_ok=True)
        with open(f"{directory}/f{number}", "wb") as file:
            file.write(os.urandom(number * 13 % 9000))
    os.symlink("d0/f0", f"{root}/link")
    if large:
        with open(f"{root}/large", "wb") as file:
            for _ in range(large):
                file.write(os.urandom(1 << 20))


def said_missing(client: Client, path: str = "kept") -> dict[str, str]:
    """What ``hoard --check`` says is not here."""
    command = ("hoard", "--check", client.path(path), "--json")
    answer = json.loads(client.awayfs(*command, check=False))
    return {item["path"]: item["why"] for item in answer["missing"]}


def test_what_the_check_says_is_there_can_be_read_offline(client: Client) -> None:
    os.makedirs(client.server.root + "/kept")
    make_tree(client.server.root + "/kept", 400, large=9)
    client.awayfs("pin", client.path("kept"))
    assert said_missing(client) == {}
    client.server.cut()
    eventually(lambda: client.status()["mode"] == "disconnected", "offline")
    run("diff", "-r", "--no-dereference", client.path("kept"), client.server.files + "/kept")


def test_a_walk_that_is_cut_goes_on_by_itself(client: Client) -> None:
    """What came before the cut stays; the check never said more than could be read."""
    root = client.server.root + "/kept"
    os.makedirs(root)
    make_tree(root, 1500, large=48)
    os.listdir(client.path("kept"))
    client.awayfs("pin", "--no-walk", client.path("kept"))
    walk = threading.Thread(
        target=lambda: client.awayfs("hoard", client.path("kept"), check=False), daemon=True
    )
    walk.start()
    eventually(lambda: client.status()["cache"]["bytes"] > 300_000, "some of it")
    client.server.cut()
    walk.join(30)
    assert not walk.is_alive(), "the walk hangs"
    eventually(lambda: client.status()["mode"] == "disconnected", "offline")
    before = client.status()["cache"]["bytes"]
    for path, why in said_missing(client).items():
        assert why, path
    client.server.restore()
    eventually(lambda: client.status()["mode"] == "connected", "online")
    assert client.status()["cache"]["bytes"] >= before
    eventually(lambda: not said_missing(client), "the rest, without being asked", 60)
    client.server.cut()
    eventually(lambda: client.status()["mode"] == "disconnected", "offline")
    run("diff", "-r", "--no-dereference", client.path("kept"), client.server.files + "/kept")


def test_what_is_put_into_a_pinned_directory_comes_by_itself(client: Client) -> None:
    root = client.server.root
    for directory in ("kept", "other"):
        os.makedirs(f"{root}/{directory}")
    with open(f"{root}/other/file", "wb") as file:
        file.write(os.urandom(200_000))
    client.awayfs("pin", client.path("kept"))
    os.rename(client.path("other/file"), client.path("kept/file"))
    assert os.getxattr(client.path("kept/file"), "user.awayfs.pin") == b"inherited"
    eventually(lambda: not said_missing(client), "the file that was moved in")
    client.sync()
    client.offline()
    run("cmp", client.path("kept/file"), f"{root}/kept/file")


def test_a_read_waits_for_no_walk(client: Client) -> None:
    """A user reads what is not here while a large file is being fetched."""
    root = client.server.root
    make_tree(root, 60, large=64)
    with open(f"{root}/wanted", "wb") as file:
        file.write(os.urandom(300_000))
    walk = threading.Thread(
        target=lambda: client.awayfs("hoard", client.mountpoint, check=False), daemon=True
    )
    walk.start()
    time.sleep(0.3)
    run("cmp", client.path("wanted"), f"{root}/wanted", timeout=20)
    walk.join(60)
    assert said_missing(client, "") == {}


def test_a_pin_of_what_is_not_there_says_so(client: Client) -> None:
    assert "no such file" in client.fails("pin", client.path("gone")).lower()
    assert "nothing is pinned" in client.awayfs("pins")


def test_what_is_fetched_ahead_is_explained_and_what_was_missing_suggested(client: Client) -> None:
    root = client.server.root
    os.makedirs(f"{root}/work")
    for number in range(5):
        with open(f"{root}/work/{number}", "wb") as file:
            file.write(b"%d" % number * 5000)
    for number in (0, 1):
        run("cat", client.path(f"work/{number}"))

    def explained() -> bool:
        reply = json.loads(client.awayfs("hoard", "--why", client.path("work/0"), "--json"))
        return bool(reply["wanted"]) and {"used"} <= {r["kind"] for r in reply["reasons"]}

    eventually(explained, "why")
    client.offline()
    for number in (3, 4):
        run("cat", client.path(f"work/{number}"), check=False)
    said = client.awayfs("hoard", "--suggest")
    here = [n for n in (3, 4) if f"work/{n}" not in said]
    for number in here:  # it was fetched ahead by then
        run("cmp", client.path(f"work/{number}"), f"{root}/work/{number}")
    assert "no such file" in client.fails("hoard", "--why", client.path("gone")).lower()
