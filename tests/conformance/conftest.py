"""One parameter for each remote that can be tested here, and a way to run a test on it."""

from __future__ import annotations

import asyncio
import os
import subprocess
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from case import Case
from factories import Factory, all_factories
from tests.preforked import Forked

from awayfs.remotes import spawning

Body = Callable[[Case], Awaitable[None]]


@pytest.fixture(params=[pytest.param(f, id=f.name, marks=f.marks) for f in all_factories()])
def factory(request: pytest.FixtureRequest) -> Factory:
    """The remotes, one after the other."""
    found: Factory = request.param
    return found


def _begun(command: Sequence[str], **how: Any) -> subprocess.Popen[bytes]:
    cut = "--cut-at" in command
    return (Forked if cut else subprocess.Popen)(command, **how)


@pytest.fixture(autouse=True)
def cut_workers_are_forked(monkeypatch: pytest.MonkeyPatch) -> None:
    """See ``factories.cut_worker``."""
    begun = SimpleNamespace(Popen=_begun, DEVNULL=subprocess.DEVNULL)
    monkeypatch.setattr(spawning, "subprocess", begun)


@pytest.fixture
def run(factory: Factory, tmp_path: Path) -> Callable[[Body], None]:
    """Run an async test body on a connected remote over an empty directory."""

    def run_body(body: Body) -> None:
        async def whole() -> None:
            root = tmp_path / "root"
            root.mkdir()
            async with factory.open(os.fsencode(root)) as served:
                connected = await served.remote.connect()
                await body(Case(served.remote, served.root, connected, served.cut_at, served.puts))

        asyncio.run(whole())

    return run_body
