"""A file that changes on the server between the tries of one read."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.unit.test_volume_review import World, played


def test_a_file_that_shrinks_and_grows_while_it_is_read_has_no_zeros(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A try that met a shorter revision does not shorten what the next one fetches."""
    revisions: Iterator[bytes] = iter([b"B" * 4, b"C" * 4000])

    async def play(world: World) -> None:
        file, fetcher = world.share / "f", world.volume.fetcher
        file.write_bytes(b"A" * 4000)
        node = await world.find("f")
        handle = world.volume.files.open(node, writing=False)
        fetch = fetcher._fetch

        async def after_a_change(*given: Any) -> bool:
            content = next(revisions, None)
            if content is not None:
                file.write_bytes(content)
            return await fetch(*given)

        monkeypatch.setattr(fetcher, "_fetch", after_a_change)
        assert await world.read(handle, 0, 4000) == b"C" * 4000
        world.volume.files.close(handle)

    played(tmp_path, play)


@pytest.mark.parametrize(
    ("size", "written", "expected"),
    [
        (0, 0, b"new"),
        (4, 12, b"AAAA" + bytes(8) + b"new"),
        (4, 0, b"newA"),
    ],
)
@pytest.mark.parametrize("amid", [True, False], ids=["amid", "after"])
def test_an_answer_is_not_laid_over_what_was_cut_off_and_written_while_it_came(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    size: int,
    written: int,
    expected: bytes,
    amid: bool,
) -> None:
    async def play(world: World) -> None:
        files, fetcher, file = world.volume.files, world.volume.fetcher, world.share / "f"
        file.write_bytes(b"A" * 4000)
        node = await world.find("f")
        handle = files.open(node, writing=False)
        take, taken = fetcher._take, False

        def after_a_change(*given: Any) -> bool:
            nonlocal taken
            if not taken:
                taken = True
                files.truncate(world.shown(node), size)
                if amid:
                    world.write(node, written, b"new")
            return take(*given)

        monkeypatch.setattr(fetcher, "_take", after_a_change)
        await world.read(handle, 0, 4000)
        if not amid:
            world.write(node, written, b"new")
        assert await world.read(handle, 0, 4000) == expected
        files.close(handle)
        await world.drained()
        assert file.read_bytes() == expected

    played(tmp_path, play)
