"""Daemons of volumes on one server tell each other what they noticed; nobody is believed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from awayfs.control import mountinfo, mounts, paths
from awayfs.control.client import Client
from awayfs.control.messages import ControlError
from awayfs.control.server import ControlServer
from awayfs.daemon import neighbours
from awayfs.daemon.neighbours import Neighbours

NAS = "sftp://me@nas"


class FakeLink:
    """Remembers what it is told."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def doubt(self, cause: str) -> None:
        self.told.append(f"? {cause}")

    def hope(self, cause: str) -> None:
        self.told.append(f"! {cause}")


@pytest.fixture(autouse=True)
def _own_directories(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    monkeypatch.setattr(mountinfo, "read", list)
    paths.ensure_state()


class Daemons:
    """As many as there are URLs, each with a link and a socket."""

    def __init__(self, *urls: str) -> None:
        self.links = [FakeLink() for _ in urls]
        self.all = [
            Neighbours(link, f"v{number}", url)  # type: ignore[arg-type]
            for number, (link, url) in enumerate(zip(self.links, urls, strict=True))
        ]
        self._urls = urls
        self._servers: list[ControlServer] = []

    async def __aenter__(self) -> Daemons:
        for number, (one, url) in enumerate(zip(self.all, self._urls, strict=True)):
            mounts.announce(f"v{number}", url, f"/nowhere/{number}".encode())
            server = ControlServer(paths.socket_file(f"v{number}"), one.handlers())
            await server.start()
            self._servers.append(server)
        return self

    async def __aexit__(self, *_: object) -> None:
        for server in self._servers:
            await server.close(0.1)

    @property
    def told(self) -> list[list[str]]:
        return [link.told for link in self.links]


def scenario(*urls: str) -> Callable[[Callable[[Daemons], Coroutine[Any, Any, None]]], None]:
    def run(play: Callable[[Daemons], Coroutine[Any, Any, None]]) -> None:
        async def body() -> None:
            async with Daemons(*urls) as daemons:
                await asyncio.wait_for(play(daemons), 90)

        asyncio.run(body())

    return run


def test_those_of_the_same_server_are_told_and_no_others() -> None:
    @scenario(f"{NAS}/a", f"{NAS}:2222/b", "sftp://me@other/c", f"{NAS}/d")
    async def play(daemons: Daemons) -> None:
        await daemons.all[0].tell(False, "no\nanswer " + "x" * 1000)
        hint = "? another volume lost nas: no answer xxx"
        assert [told[0][: len(hint)] if told else "" for told in daemons.told] == [
            "",
            hint,
            "",
            hint,
        ]
        assert len(daemons.told[1][0]) < 300
        await daemons.all[3].tell(True, "server answers")
        assert daemons.told[0] == ["! another volume has reached nas"]


def test_directories_of_this_machine_have_no_neighbours() -> None:
    @scenario("dir:/a", "dir:/b")
    async def play(daemons: Daemons) -> None:
        await daemons.all[0].tell(False, "gone")
        assert daemons.told == [[], []]


def test_one_that_does_not_answer_keeps_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(neighbours, "TOLD_WITHIN_S", 0.2)

    @scenario(f"{NAS}/a", f"{NAS}/b", f"{NAS}/c")
    async def play(daemons: Daemons) -> None:
        async def silent(_params: dict[str, Any]) -> dict[str, Any]:
            await asyncio.sleep(3600)
            return {}

        daemons._servers[1]._handlers = {"hint": silent}
        await asyncio.wait_for(daemons.all[0].tell(False, "no answer"), 2)
        assert len(daemons.told[2]) == 1


@pytest.mark.parametrize(
    "params",
    [{}, {"came": 1, "server": "nas"}, {"came": False}, {"came": False, "server": "elsewhere"}],
)
def test_hints_that_mean_nothing(params: dict[str, Any]) -> None:
    @scenario(f"{NAS}/a")
    async def play(daemons: Daemons) -> None:
        def ask() -> None:
            with Client(paths.socket_file("v0")) as client:
                client.call("hint", params)

        with pytest.raises(ControlError):
            await asyncio.to_thread(ask)
        assert daemons.told == [[]]
