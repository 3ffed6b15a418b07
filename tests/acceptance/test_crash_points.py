"""Every named crash point is reached, and what stands in CRASH.md holds at it.

One scenario a name: something is prepared offline, the daemon dies at the point, another one
takes over, and in the end both sides are as if nothing had happened.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import subprocess
from collections.abc import Callable, Iterator

import pytest

from awayfs.control.client import ControlError
from awayfs.store.files import clone_or_copy
from awayfs.volume.changes import RENAME_EXCHANGE
from awayfs.volume.fault import NAMES
from tests.acceptance.crash import Crashes
from tests.harness import (
    Client,
    assert_same_tree,
    eventually,
    make_server,
    needs_fuse,
    tree,
)

pytestmark = [*needs_fuse, pytest.mark.slow]

Step = Callable[[Crashes], None]


def write(path: str, text: str) -> None:
    with open(path, "w") as file:
        file.write(text)


def read(path: str) -> str:
    with open(path) as file:
        return file.read()


def shell(crashes: Crashes, script: str) -> None:
    """Work in the mount by another process, which fails when the daemon dies of it."""
    subprocess.run(["sh", "-c", script], cwd=crashes.client.mountpoint, timeout=60, check=False)


def go_online(crashes: Crashes) -> None:
    """Replay begins; the daemon may die of it at any time."""
    with contextlib.suppress(ControlError):
        crashes.ask("online")
    with contextlib.suppress(ControlError):
        crashes.ask("sync")


def edited(crashes: Crashes) -> None:
    shell(crashes, "echo edited > plain; mkdir made; echo new > made/file")


def both_edited(crashes: Crashes) -> None:
    shell(crashes, "echo local > plain")
    write(f"{crashes.client.server.root}/plain", "server's\n")


def both_made(crashes: Crashes) -> None:
    shell(crashes, "echo local > fresh")
    write(f"{crashes.client.server.root}/fresh", "server's\n")


def made_in_what_went(crashes: Crashes) -> None:
    shell(crashes, "echo new > folder/fresh")
    os.unlink(f"{crashes.client.server.root}/folder/inside")
    os.rmdir(f"{crashes.client.server.root}/folder")


def both_renamed(crashes: Crashes) -> None:
    shell(crashes, "mv folder ours")
    root = crashes.client.server.root
    os.rename(f"{root}/folder", f"{root}/theirs")


def in_conflict(prepare: Step) -> Step:
    """The conflict is there; its resolution is what the daemon dies of."""

    def setup(crashes: Crashes) -> None:
        prepare(crashes)
        go_online(crashes)
        crashes.client.sync(check=False)
        assert len(crashes.client.conflicts()) == 1

    return setup


def nothing(_crashes: Crashes) -> None:
    pass


def cut_off(crashes: Crashes) -> None:
    """An operation was cut off before: what it left is put right first."""
    edited(crashes)
    crashes.clear()
    crashes.mount("replay.frozen")
    go_online(crashes)
    eventually(lambda: not crashes.alive(), "the first death")
    crashes.clear("replay.frozen")


def does(script: str) -> Step:
    return lambda crashes: shell(crashes, script)


def reads_unread(crashes: Crashes) -> None:
    go_online(crashes)
    shell(crashes, "cat unread > /dev/null")


def resolves(path: str, keep: str) -> Step:
    def act(crashes: Crashes) -> None:
        if crashes.client.conflicts():
            client = crashes.client
            client.awayfs("resolve", client.path(path), "--keep", keep, check=False)

    return act


def in_step(crashes: Crashes) -> None:
    """All arrived, once, and without a conflict with oneself."""
    go_online(crashes)
    crashes.client.sync()
    assert crashes.client.conflicts() == []
    assert_same_tree(
        tree(crashes.client.mountpoint, directories_mtime=False),
        tree(crashes.client.server.root, directories_mtime=False),
    )


def has(name: str, text: str) -> Step:
    def check(crashes: Crashes) -> None:
        in_step(crashes)
        assert read(f"{crashes.client.server.root}/{name}") == text

    return check


def takes(path: str, text: str) -> Step:
    """A decision for a content of its own."""

    def act(crashes: Crashes) -> None:
        if crashes.client.conflicts():
            client = crashes.client
            merged = f"{client.base}/merged"
            write(merged, text)
            client.awayfs("resolve", client.path(path), "--with", merged, check=False)

    return act


def decided_for(path: str, text: str) -> Step:
    """Once the decision is made again, if it has to be, it stands on both sides."""

    def check(crashes: Crashes) -> None:
        go_online(crashes)
        crashes.client.sync(check=False)
        takes(path, text)(crashes)
        has(path, text)(crashes)
        lost = json.loads(crashes.client.awayfs("resolve", "--history", "--json"))["history"]
        assert sorted(one["which"] for one in lost) == ["local", "server"]

    return check


def decided(prepare: Step, path: str, keep: str) -> Step:
    """A conflict was decided, and the decision has arrived."""

    def setup(crashes: Crashes) -> None:
        in_conflict(prepare)(crashes)
        crashes.client.awayfs("resolve", crashes.client.path(path), "--keep", keep)
        crashes.client.sync()

    return setup


def undoes(path: str) -> Step:
    def act(crashes: Crashes) -> None:
        crashes.client.awayfs("resolve", "--undo", crashes.client.path(path), check=False)

    return act


def both_kept(path: str, keep: str, wins: str, copied: str) -> Step:
    """The conflict may have to be decided again, which makes no second copy."""

    def check(crashes: Crashes) -> None:
        go_online(crashes)
        crashes.client.sync(check=False)
        resolves(path, keep)(crashes)
        has(path, wins)(crashes)
        root = crashes.client.server.root
        copies = [read(f"{root}/{name}") for name in os.listdir(root) if "conflict" in name]
        assert copies == ([copied] if copied else [])

    return check


def named_ours(crashes: Crashes) -> None:
    """The decision is made again where it has to be; no directory is there twice."""
    go_online(crashes)
    crashes.client.sync(check=False)
    resolves("ours", "local")(crashes)
    has("ours/inside", "folder/inside\n" * 1000)(crashes)
    assert not os.path.exists(f"{crashes.client.server.root}/theirs")


def parked(crashes: Crashes) -> None:
    """One conflict, with both variants."""
    go_online(crashes)
    crashes.client.sync(check=False)
    assert [c["kind"] for c in crashes.client.conflicts()] == ["update/update"]
    assert read(crashes.client.path("plain")) == "local\n"
    assert read(f"{crashes.client.server.root}/plain") == "server's\n"
    both_kept("plain", "local", "local\n", "")(crashes)


def discards(crashes: Crashes) -> None:
    crashes.client.awayfs("discard", crashes.client.mountpoint, "--all", check=False)


def discarded(crashes: Crashes) -> None:
    """Discarding goes on where it was; nothing of it is left, and the server saw nothing."""
    discards(crashes)
    assert crashes.ask("journal_list")["records"] == []
    has("plain", LONG)(crashes)
    assert sorted(os.listdir(crashes.client.server.root)) == [
        "folder",
        "plain",
        "twin",
        "twin2",
        "unread",
    ]


def exported(crashes: Crashes) -> None:
    edited(crashes)
    client = crashes.client
    archive = f"{client.base}/work.tar"
    client.awayfs("journal", "export", archive, "--mount", client.mountpoint)
    discards(crashes)


def imports(crashes: Crashes) -> None:
    client = crashes.client
    client.awayfs(
        "journal", "import", f"{client.base}/work.tar", "--mount", client.mountpoint, check=False
    )


def imported(crashes: Crashes) -> None:
    """What came in before the end is discarded, and all of it is imported again."""
    discards(crashes)
    imports(crashes)
    EDITED(crashes)
    assert read(f"{crashes.client.server.root}/made/file") == "new\n"


def exchanges(crashes: Crashes) -> None:
    """Offline; over SFTP it will take several steps."""
    libc = ctypes.CDLL(None, use_errno=True)
    one, other = (os.fsencode(crashes.client.path(name)) for name in ("plain", "folder/inside"))
    assert libc.renameat2(-100, one, -100, other, RENAME_EXCHANGE) == 0, ctypes.get_errno()


def exchanged(crashes: Crashes) -> None:
    """On both sides, and without a conflict."""
    go_online(crashes)
    crashes.client.sync()
    assert crashes.client.conflicts() == []
    for root in crashes.client.mountpoint, crashes.client.server.root:
        assert read(f"{root}/plain") == "folder/inside\n" * 1000
        assert read(f"{root}/folder/inside") == LONG


OVER_SFTP = ("replay.aside", "replay.crossing")
EDITED = has("plain", "edited\n")
LONG = "plain\n" * 1000
PARTS = "part\n" * 4_000_000
LARGE = "large\n" * (1 << 18)


def large(crashes: Crashes) -> None:
    """A file whose base takes long to copy is there, and known."""
    here = crashes.client.state
    write(f"{here}/probe", "x")
    if clone_or_copy(f"{here}/probe", f"{here}/clone", (), -1) is not None:
        pytest.skip("the state's file system shares blocks: no base is copied")
    go_online(crashes)
    write(f"{crashes.client.server.root}/large", LARGE)
    eventually(lambda: "large" in os.listdir(crashes.client.mountpoint), "the new file")
    assert read(crashes.client.path("large")) == LARGE
    crashes.client.offline()


# What is prepared by a daemon before, what the daemon dies of, and what must be in the end.
SCENARIOS: dict[str, tuple[Step, Step, Step]] = {
    "journal.appended": (nothing, does("mkdir made"), in_step),
    "changes.applied": (nothing, does("mkdir made"), in_step),
    "base.copied": (large, does("echo more >> large"), has("large", LARGE)),
    "files.journaled": (nothing, does("echo more >> plain"), has("plain", LONG)),
    "files.written": (nothing, does("echo more >> plain"), has("plain", LONG + "more\n")),
    "sync.written": (edited, does("sync plain"), EDITED),
    "fetch.landed": (nothing, reads_unread, in_step),
    "fetch.taken": (nothing, reads_unread, in_step),
    "replay.optimised": (does("echo x > gone; rm gone; echo edited > plain"), go_online, EDITED),
    "replay.settled": (cut_off, go_online, EDITED),
    "replay.decided": (edited, go_online, EDITED),
    "replay.intended": (edited, go_online, EDITED),
    "replay.part": (does("yes part | head -c 20000000 > fresh"), go_online, has("fresh", PARTS)),
    "replay.staged": (edited, go_online, EDITED),
    "replay.frozen": (edited, go_online, EDITED),
    "replay.aside": (exchanges, go_online, exchanged),
    "replay.crossing": (exchanges, go_online, exchanged),
    "replay.acted": (edited, go_online, EDITED),
    "replay.committed": (edited, go_online, EDITED),
    "replay.relinking": (does("echo edited > twin"), go_online, has("twin2", "edited\n")),
    "replay.relinked": (does("echo edited > twin"), go_online, has("twin2", "edited\n")),
    "replay.reviving": (made_in_what_went, go_online, has("folder/fresh", "new\n")),
    "parking.kept": (both_edited, go_online, parked),
    "parking.parked": (both_edited, go_online, parked),
    "resolve.kept": (
        in_conflict(both_edited),
        resolves("plain", "server"),
        both_kept("plain", "local", "local\n", ""),
    ),
    "resolve.replacing": (
        in_conflict(both_edited),
        takes("plain", "merged\n"),
        decided_for("plain", "merged\n"),
    ),
    "resolve.taken": (
        in_conflict(both_edited),
        takes("plain", "merged\n"),
        decided_for("plain", "merged\n"),
    ),
    "resolve.undone": (
        decided(both_edited, "plain", "server"),
        undoes("plain"),
        has("plain", "local\n"),
    ),
    "resolve.moving": (
        in_conflict(both_made),
        resolves("fresh", "local"),
        both_kept("fresh", "local", "local\n", "server's\n"),
    ),
    "resolve.moved": (
        in_conflict(both_made),
        resolves("fresh", "local"),
        both_kept("fresh", "local", "local\n", "server's\n"),
    ),
    "resolve.copied": (
        in_conflict(both_edited),
        resolves("plain", "both"),
        both_kept("plain", "both", "server's\n", "local\n"),
    ),
    "resolve.found": (in_conflict(both_renamed), resolves("ours", "local"), named_ours),
    "resolve.decided": (
        in_conflict(both_edited),
        resolves("plain", "local"),
        both_kept("plain", "local", "local\n", ""),
    ),
    "discard.kept": (edited, discards, discarded),
    "discard.applied": (edited, discards, discarded),
    "import.applied": (exported, imports, imported),
}


def test_each_name_has_its_scenario() -> None:
    assert set(SCENARIOS) == set(NAMES)


@pytest.fixture
def crashes(tmp_path: object, request: pytest.FixtureRequest) -> Iterator[Crashes]:
    """A volume whose files are here but for one, offline."""
    kind = "sftp" if request.node.callspec.params["name"] in OVER_SFTP else "dir"
    server = make_server(kind, str(tmp_path))
    os.makedirs(f"{server.root}/folder")
    for name in ("plain", "unread", "twin", "folder/inside"):
        write(f"{server.root}/{name}", f"{name}\n" * 1000)
    os.link(f"{server.root}/twin", f"{server.root}/twin2")
    client = Client(str(tmp_path), server)
    client.mount()
    crashes = Crashes(client, str(tmp_path), 1)
    try:
        client.awayfs("pin", *(client.path(name) for name in ("plain", "twin", "folder")))
        crashes.ask("offline")
        yield crashes
    finally:
        crashes.close()
        client.close()
        server.close()


@pytest.mark.parametrize("name", NAMES)
def test_death_at(name: str, crashes: Crashes) -> None:
    prepare, act, check = SCENARIOS[name]
    prepare(crashes)
    if crashes.alive():
        crashes.clear()
    crashes.mount(name)
    if not crashes.kills[name]:
        with contextlib.suppress(ControlError):
            act(crashes)
        eventually(lambda: not crashes.alive(), f"death at {name}")
        crashes.clear(name)
        crashes.mount()
    assert crashes.kills[name] == 1
    check(crashes)
    walked = os.walk(crashes.client.server.root)
    names = [name for _, directories, files in walked for name in (*directories, *files)]
    assert not [name for name in names if name.startswith(".awayfs-")]
    crashes.check_store()
