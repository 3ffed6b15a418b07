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
