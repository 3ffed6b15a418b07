"""What a volume does beside its event loop is over when it stops."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Iterable
from pathlib import Path

import pytest
from test_volume_review import World

from awayfs.volume import volume as volume_module


def test_no_base_is_deleted_once_another_daemon_may_make_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would give out the same name again, and a thread that is late would delete that one."""
    begun, may_go_on, deleted = threading.Event(), threading.Event(), list[str]()

    def slow(paths: Iterable[str]) -> None:
        begun.set()
        may_go_on.wait(30)
        for path in paths:
            os.unlink(path)
            deleted.append(path)

    monkeypatch.setattr(volume_module, "unlink_all", slow)

    async def run() -> None:
        world = World(tmp_path)
        (world.share / "f").write_bytes(b"theirs")
        await world.online()
        node = await world.cached("f")
        world.volume.start()
        world.write(node, 0, b"ours")
        base = world.store.content.bases.path(node.id)
        assert base is not None and os.path.exists(base)
        while not begun.is_set():
            await asyncio.sleep(0.05)
        asyncio.get_running_loop().call_later(0.3, may_go_on.set)
        await world.volume.stop()
        assert deleted == [base]
        world.store.close()

    asyncio.run(asyncio.wait_for(run(), 60))


@pytest.mark.parametrize("woken", ["link", "culling", "both"])
def test_who_was_woken_a_moment_ago_ends_too(tmp_path: Path, woken: str) -> None:
    """The worker ends with us when a service is stopped: then the link has just been lost."""

    async def run() -> None:
        world = World(tmp_path)
        await world.online()
        world.volume.start()
        await asyncio.sleep(0.1)
        if woken != "culling":
            world.volume.link.lost("the worker process ended")
        if woken != "link":
            world.volume.culling.wake()
        await world.volume.stop()
        assert not world.volume.context.tasks
        world.store.close()

    asyncio.run(asyncio.wait_for(run(), 60))
