"""Half-done states that only a race and a cut together leave behind, made by hand.

The states that a cut alone leaves are visited by the conformance suite.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from hashlib import blake2b
from pathlib import Path

import pytest

from awayfs.core.types import ABSENT, NEVER_SEEN, Entry, Expected, Kind
from awayfs.ports.remote import Intent
from awayfs.remotes.directory import DirectoryRemote
from awayfs.remotes.directory_facts import FileSystem

State = dict[str, str]
CONFLICT = "f (conflict op)"


class Disk:
    """A directory, what was seen in it, and what stands there later."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.remote = DirectoryRemote(os.fsencode(root))
        self.seen: dict[str, Entry] = {}

    def expected(self, content: str) -> Expected:
        entry = self.seen[content]
        return Expected(entry.token, entry.file_id, entry.kind)

    async def see(self, *contents: str) -> None:
        """Make a file of each content, and remember its entry."""
        for content in contents:
            (self.root / content).write_text(content)
            self.seen[content] = await self.remote.stat(content.encode())

    def arrange(self, state: State) -> None:
        """Move the files seen to where a cut operation left them."""
        for name, content in state.items():
            os.rename(self.root / content, self.root / name)

    def state(self) -> State:
        return {path.name: path.read_text() for path in self.root.iterdir()}


OLD = ".awayfs-op.old"

# name: what is where, and where it must be afterwards. N is brought by the operation, E is
# the revision expected at f, X is anybody else's.
REPLACE = {
    "moved aside to be exchanged": ({"f": "E", OLD: "N"}, {"f": "E"}),
    "moved aside, the target is another": ({"f": "X", OLD: "N"}, {"f": "X"}),
    "exchanged": ({"f": "N", OLD: "E"}, {"f": "N"}),
    "exchanged, the wrong one came out": ({"f": "N", OLD: "X"}, {"f": "X"}),
    "target moved aside": ({OLD: "E"}, {"f": "E"}),
    "another target moved aside": ({OLD: "X"}, {"f": "X"}),
    "only ours is left": ({OLD: "N"}, {}),
    "name taken meanwhile": ({"f": "Y", OLD: "E"}, {"f": "Y", CONFLICT: "E"}),
    "name taken, another aside": ({"f": "Y", OLD: "X"}, {"f": "Y", CONFLICT: "X"}),
}
RENAME = {
    "moved aside to be exchanged": ({"f": "E", OLD: "N"}, {"f": "E", "source": "N"}),
    "exchanged": ({"f": "N", OLD: "E"}, {"f": "N"}),
    "exchanged, the wrong one came out": ({"f": "N", OLD: "X"}, {"f": "X", "source": "N"}),
    "source name taken": (
        {"f": "E", OLD: "N", "source": "Y"},
        {"f": "E", "source": "Y", "source (conflict op)": "N"},
    ),
    "target vanished": ({OLD: "N"}, {"source": "N"}),
    "target moved aside": ({OLD: "E", "source": "N"}, {"f": "E", "source": "N"}),
    "name taken meanwhile": (
        {"f": "Y", OLD: "E", "source": "N"},
        {"f": "Y", CONFLICT: "E", "source": "N"},
    ),
}
REMOVE = {
    "target moved aside": ({OLD: "E"}, {"f": "E"}),
    "another target moved aside": ({OLD: "X"}, {"f": "X"}),
    "name taken meanwhile": ({"f": "Y", OLD: "X"}, {"f": "Y", CONFLICT: "X"}),
}


def settle(root: Path, before: State, after: State, intent: Callable[[Disk], Intent]) -> None:
    async def body() -> None:
        disk = Disk(root)
        await disk.remote.connect()
        await disk.see("N", "E", "X", "Y")
        for content in {"N", "E", "X", "Y"} - set(before.values()):
            (root / content).unlink()
        disk.arrange(before)
        for _ in range(2):
            await disk.remote.settle(intent(disk))
            assert disk.state() == after
        await disk.remote.close()

    asyncio.run(body())


@pytest.mark.parametrize("case", REPLACE)
def test_replace(tmp_path: Path, case: str) -> None:
    before, after = REPLACE[case]
    settle(
        tmp_path,
        before,
        after,
        lambda disk: Intent("op", b"f", disk.expected("E"), staged=disk.seen["N"]),
    )


@pytest.mark.parametrize("case", REPLACE)
@pytest.mark.parametrize("ids", [True, False])
def test_put(tmp_path: Path, case: str, ids: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of what it brings no more than the content is known."""
    if not ids:
        monkeypatch.setattr(FileSystem, "file_id", lambda *_: None)
    before, after = REPLACE[case]
    unseen = Entry(b"", Kind.FILE, 0o644, 0, 0, 1, 0, NEVER_SEEN, weak=True)
    digest = blake2b(b"N", digest_size=32).digest()
    settle(
        tmp_path,
        before,
        after,
        lambda disk: Intent("op", b"f", disk.expected("E"), staged=unseen, staged_digest=digest),
    )


@pytest.mark.parametrize("case", RENAME)
def test_rename_over(tmp_path: Path, case: str) -> None:
    before, after = RENAME[case]
    settle(
        tmp_path,
        before,
        after,
        lambda disk: Intent("op", b"f", disk.expected("E"), b"source", disk.expected("N")),
    )


@pytest.mark.parametrize("case", REMOVE)
def test_remove(tmp_path: Path, case: str) -> None:
    before, after = REMOVE[case]
    settle(tmp_path, before, after, lambda disk: Intent("op", b"f", disk.expected("E")))


def test_the_staged_file_was_written_to_in_its_public_moment(tmp_path: Path) -> None:
    """Exchanged, the wrong one came out, and someone wrote into ours: both are kept."""

    async def body() -> None:
        disk = Disk(tmp_path)
        await disk.remote.connect()
        await disk.see("N", "E", "X")
        (tmp_path / "E").unlink()
        disk.arrange({"f": "N", OLD: "X"})
        (tmp_path / "f").write_text("N and more")
        intent = Intent("op", b"f", disk.expected("E"), staged=disk.seen["N"])
        await disk.remote.settle(intent)
        assert disk.state() == {"f": "N and more", CONFLICT: "X"}

    asyncio.run(body())


def test_what_was_made_is_discarded(tmp_path: Path) -> None:
    async def body() -> None:
        remote = DirectoryRemote(os.fsencode(tmp_path))
        await remote.connect()
        for make in (os.mkdir, lambda path: os.symlink("x", path), os.mkfifo):
            make(tmp_path / ".awayfs-op.new")
            await remote.settle(Intent("op", b"f", ABSENT))
            assert list(tmp_path.iterdir()) == []

    asyncio.run(body())


def test_conflict_names_are_numbered_and_fit(tmp_path: Path) -> None:
    async def body() -> None:
        disk = Disk(tmp_path)
        await disk.remote.connect()
        long = "n" * 250 + ".txt"
        for content in ("first", "second"):
            await disk.see("E", content)
            (tmp_path / long).write_text("theirs")
            os.rename(tmp_path / content, tmp_path / OLD)
            await disk.remote.settle(Intent("op", long.encode(), disk.expected("E")))
            (tmp_path / "E").unlink()
        names = sorted(disk.state())
        assert len(names) == 3
        assert all(len(name) <= 255 and name.endswith(".txt") for name in names)
        assert sorted(disk.state().values()) == ["first", "second", "theirs"]

    asyncio.run(body())
