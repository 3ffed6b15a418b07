"""What files on the share may ask of us is bounded, however many there are."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.unit.test_volume_review import World, played

from awayfs.volume import share_rules


@pytest.mark.parametrize(("files", "patterns"), [(2, 1000), (200, 2)])
def test_the_files_nearest_to_the_root_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, files: int, patterns: int
) -> None:
    monkeypatch.setattr(share_rules, "MOST_FILES", files)
    monkeypatch.setattr(share_rules, "MOST_PATTERNS_IN_ALL", patterns)

    async def play(world: World) -> None:
        for name in ("", "a", "a/b", "z"):
            place = world.share / name
            place.mkdir(exist_ok=True)
            (place / ".awayfs.toml").write_text('[[directory]]\npath = "f"\npin = 1\n')
        for name in ("a", "z", "a/b", ""):
            await world.volume.observer.directory((await world.find(name)).id if name else 1)
        rules, effective = world.volume.share_rules, world.volume.context.effective
        await rules.read_settings()
        assert [effective.at(p, "pin").where for p in (b"f", b"a/f", b"z/f", b"a/b/f")] == [
            ".awayfs.toml [[directory]] number 1",
            "a/.awayfs.toml [[directory]] number 1",
            ".awayfs.toml [[directory]] number 1",
            "a/.awayfs.toml [[directory]] number 1",
        ]
        assert [line.partition(":")[0] for line in rules.complaints()] == ["z/.awayfs.toml"]
        (world.share / "z" / ".awayfs.toml").unlink()
        (world.share / "a" / "b" / ".awayfs.toml").unlink()
        for name in ("z", "a/b"):
            await world.volume.observer.directory((await world.find(name)).id)
        await rules.read_settings()
        assert rules.complaints() == []

    played(tmp_path, play)
