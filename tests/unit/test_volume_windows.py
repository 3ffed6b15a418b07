"""What changes between a look at the server and what follows from it."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.unit.test_volume_review import World, played

from awayfs.core.types import ROOT, Attributes

CHANGES: dict[str, tuple[str, Callable[[World, int], Any]]] = {
    "mode": (
        "set_attributes",
        lambda world, node: world.volume.changes.set_attributes(node, Attributes(mode=0o600)),
    ),
    "time": (
        "set_attributes",
        lambda world, node: world.volume.changes.set_attributes(
            node, Attributes(mtime_ns=1_000_000_000)
        ),
    ),
    "rename": (
        "rename",
        lambda world, node: world.volume.changes.rename(ROOT, b"f", ROOT, b"g", 0),
    ),
    "link": ("link", lambda world, node: world.volume.changes.link(node, ROOT, b"g")),
    "xattr": (
        "set_xattr",
        lambda world, node: world.volume.changes.set_xattr(node, b"user.x", b"1", 0),
    ),
}


@pytest.mark.parametrize("edit", [b"theirs", b"much longer"])
@pytest.mark.parametrize("what", CHANGES)
def test_an_edit_there_while_attributes_or_a_name_are_sent_is_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str, edit: bytes
) -> None:
    """It is no part of what we sent: it is shown, and never written over blindly."""

    async def play(world: World) -> None:
        (world.share / "f").write_bytes(b"before")
        file = await world.cached("f")
        call, change = CHANGES[what]
        real = getattr(world.volume.link.remote, call)

        async def edited_before(*args: Any) -> Any:
            await asyncio.sleep(0.01)
            with open(world.share / "f", "rb+") as there:
                there.truncate(0)
                there.write(edit)
            return await real(*args)

        monkeypatch.setattr(world.volume.link.remote, call, edited_before)
        try:
            change(world, file.id)
        except OSError:
            pytest.skip("not possible here")
        await world.drained()
        monkeypatch.undo()
        name = "g" if what == "rename" else "f"
        found = await world.cached(name)
        handle = world.volume.files.open(found, writing=False)
        try:
            assert await world.read(handle, 0, 100) == edit
        finally:
            world.volume.files.close(handle)

    played(tmp_path, play)


def test_a_listing_under_way_when_its_directory_moved_is_of_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Renamed by us, and another one made in its place: the answer is about that."""

    async def play(world: World) -> None:
        (world.share / "d").mkdir()
        (world.share / "d" / "f").write_bytes(b"theirs")
        directory, file = await world.find("d"), await world.cached("d/f")
        real = world.volume.link.remote.list_unless
        held, go = asyncio.Event(), asyncio.Event()

        async def later(path: bytes, fingerprint: bytes) -> Any:
            if path == b"d" and not held.is_set():
                held.set()
                await go.wait()
            return await real(path, fingerprint)

        monkeypatch.setattr(world.volume.link.remote, "list_unless", later)
        listing = asyncio.create_task(world.volume.observer.directory(directory.id))
        await held.wait()
        changes = world.volume.changes
        changes.rename(ROOT, b"d", ROOT, b"e", 0)
        made = changes.create(ROOT, b"d", directory.kind, 0o755, os.getuid(), os.getgid())
        new = changes.create(made.id, b"new", file.kind, 0o644, os.getuid(), os.getgid())
        await world.drained()
        go.set()
        await listing
        assert [n for n, _ in world.store.nodes.children(directory.id)] == [b"f"]
        assert [n for n, _ in world.store.nodes.children(made.id)] == [b"new"]
        assert world.store.server.names(file.id) == [(directory.id, b"f")]
        assert world.store.server.names(new.id) == [(made.id, b"new")]

    played(tmp_path, play)


def test_a_name_looked_at_when_its_directory_moved_is_of_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def play(world: World) -> None:
        (world.share / "d").mkdir()
        (world.share / "d" / "f").write_bytes(b"theirs")
        directory, file = await world.find("d"), await world.cached("d/f")
        real = world.volume.link.remote.stat
        held, go = asyncio.Event(), asyncio.Event()

        async def later(path: bytes) -> Any:
            if path == b"d/f" and not held.is_set():
                held.set()
                await go.wait()
            return await real(path)

        monkeypatch.setattr(world.volume.link.remote, "stat", later)
        look = asyncio.create_task(world.volume.observer.name(directory.id, b"f"))
        await held.wait()
        changes = world.volume.changes
        changes.rename(ROOT, b"d", ROOT, b"e", 0)
        made = changes.create(ROOT, b"d", directory.kind, 0o755, os.getuid(), os.getgid())
        new = changes.create(made.id, b"f", file.kind, 0o644, os.getuid(), os.getgid())
        world.write(new, 0, b"ours")
        await world.drained()
        go.set()
        await look
        assert world.store.server.names(file.id) == [(directory.id, b"f")]
        assert world.store.server.names(new.id) == [(made.id, b"f")]
        assert world.shown(file).size == 6 and world.shown(new).size == 4

    played(tmp_path, play)


def test_a_listing_under_way_when_its_directory_was_made_anew_is_of_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Removed by us, and made anew: nothing in it goes to the one that is gone."""

    async def play(world: World) -> None:
        (world.share / "d").mkdir()
        directory = await world.find("d")
        await world.volume.observer.directory(directory.id)
        real = world.volume.link.remote.list_unless
        held, go = asyncio.Event(), asyncio.Event()

        async def later(path: bytes, fingerprint: bytes) -> Any:
            if path == b"d" and not held.is_set():
                held.set()
                await go.wait()
            return await real(path, fingerprint)

        monkeypatch.setattr(world.volume.link.remote, "list_unless", later)
        listing = asyncio.create_task(world.volume.observer.directory(directory.id))
        await held.wait()
        changes = world.volume.changes
        changes.rmdir(ROOT, b"d")
        made = changes.create(ROOT, b"d", directory.kind, 0o755, os.getuid(), os.getgid())
        await world.drained()
        (world.share / "d" / "theirs").write_bytes(b"theirs")
        new, opened = changes.create_open(
            made.id, b"new", 0o644, os.getuid(), os.getgid(), writing=True
        )
        world.volume.context.opened.release(opened, writing=True)
        world.write(new, 0, b"ours")
        await world.drained()
        go.set()
        await listing
        assert world.store.nodes.names(new.id) == [(made.id, b"new")]
        assert world.store.server.names(new.id) == [(made.id, b"new")]
        assert world.store.server.children(directory.id) == []

    played(tmp_path, play)


def test_a_listing_while_two_directories_are_exchanged_is_of_neither(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are on the server already, and the answer that says so is on its way."""

    async def play(world: World) -> None:
        for name in ("d", "e"):
            (world.share / name).mkdir()
            (world.share / name / f"in {name}").write_bytes(b"theirs")
        nodes = {name: await world.find(name) for name in ("d", "e")}
        files = {name: await world.cached(f"{name}/in {name}") for name in nodes}
        real = world.volume.link.remote.exchange

        async def looked_at(*args: Any) -> Any:
            outcome = await real(*args)
            for node in nodes.values():
                await world.volume.observer.directory(node.id)
            return outcome

        monkeypatch.setattr(world.volume.link.remote, "exchange", looked_at)
        world.volume.changes.rename(ROOT, b"d", ROOT, b"e", 2)
        await world.drained()
        for name, node in nodes.items():
            inside = world.store.nodes.children(node.id)
            assert [(n, child.id) for n, child in inside] == [
                (f"in {name}".encode(), files[name].id)
            ]
            assert world.store.server.names(files[name].id) == [(node.id, f"in {name}".encode())]

    played(tmp_path, play)
