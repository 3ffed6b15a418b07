"""Two clients of one share which both decide by rule: they come to rest, and agree."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from tests.unit.test_volume_review import World

from awayfs.core.merge_rules import Rule, Strategy
from awayfs.core.settings import Settings
from awayfs.core.types import ROOT, Kind
from awayfs.store.fsck import check
from awayfs.volume.volume import Volume

STAMPED = ("sh", "-c", "cat {local} {server} > {merged}; date +%N >> {merged}")
RULES = {
    "text": Rule("*", Strategy.TEXT, "test"),
    "union": Rule("*", Strategy.UNION, "test"),
    "newest": Rule("*", Strategy.NEWEST, "test"),
    "local": Rule("*", Strategy.LOCAL, "test"),
    "server": Rule("*", Strategy.SERVER, "test"),
    "both": Rule("*", Strategy.BOTH, "test"),
    "command": Rule("*", Strategy.COMMAND, "test", command=STAMPED),
}
LINES = {0: b"one\n2\n3\n4\nfive\n", 1: b"1\n2\nthree\n4\n5\n"}


class Laptop(World):
    """One of several clients of a share."""

    def __init__(self, tmp_path: Path, name: str) -> None:
        self.name = name
        super().__init__(tmp_path, host=name)

    def open(self) -> None:
        self.state = str(self.share.parent / self.name)
        super().open()
        self.volume = Volume(self.volume.context, f"client{self.name}")


@pytest.mark.parametrize("made", [False, True])
@pytest.mark.parametrize("rules", [(name, name) for name in RULES] + [("union", "command")])
def test_they_come_to_rest(rules: tuple[str, str], made: bool, tmp_path: Path) -> None:
    async def play(worlds: list[World]) -> None:
        share = worlds[0].share
        if not made:
            (share / "f").write_bytes(b"1\n2\n3\n4\n5\n")
        for world, name in zip(worlds, rules, strict=True):
            settings = Settings(rules=(RULES[name],))
            world.volume.context.settings = lambda settings=settings: settings
            await world.online()
            if not made:
                await world.cached("f")
            world.volume.link.offline_by_hand()
        for number, world in enumerate(worlds):
            if made:
                node = world.volume.changes.create(ROOT, b"f", Kind.FILE, 0o644, 0, 0)
            else:
                node = world.store.nodes.resolve(b"f")  # type: ignore[assignment]
                world.volume.files.truncate(node, 0)
            world.write(node, 0, LINES[number])
        for world in worlds:
            await world.volume.link.online_by_hand()
        quiet = 0
        for _ in range(40):
            before = state(share)
            for world in worlds:
                await world.volume.observer.directory(ROOT)
                await world.drained()
                world.volume.merging.wake_all()
                await world.volume.merging._all()
                await world.drained()
            quiet = quiet + 1 if state(share) == before else 0
            if quiet == 3:
                break
        assert quiet == 3, "they never come to rest"
        if made and rules[0] == "text":
            return  # there is no base, so what both added is a person's to decide
        there = {name: content for name, (content, _) in state(share).items()}
        for world in worlds:
            assert not world.store.journal.count() and not world.store.conflicts.all()
            await world.volume.observer.directory(ROOT)
            names = {name.decode() for name, _ in world.store.nodes.children(ROOT)}
            assert names == set(there)
            assert check(world.store) == []
        assert made or len(there) == (2 if rules[1] == "both" else 1)

    async def run() -> None:
        worlds: list[World] = [Laptop(tmp_path, name) for name in "ab"]
        try:
            await play(worlds)
        finally:
            for world in worlds:
                await world.end()

    asyncio.run(run())


def state(share: Path) -> dict[str, tuple[bytes, int]]:
    return {p.name: (p.read_bytes(), p.stat().st_mtime_ns) for p in share.iterdir()}
