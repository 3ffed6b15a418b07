"""``SftpRemote`` with a program on the server that a test can kill or hold up between two steps."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from typing import Any

from awayfs.core.errors import Unreachable
from awayfs.core.types import RemotePath
from awayfs.ports.remote import Connected
from awayfs.remotes.sftp import SftpRemote
from awayfs.remotes.sftp_connection import Location
from awayfs.remotes.sftp_program import Answer, Program

_HOOK = """
def reach(name):
    {hook}
for one in list(sys.modules.values()):
    if getattr(one, "__name__", "").startswith("awayfs.remotes.server_"):
        one.reach = reach
"""


def killing(nth: int) -> str:
    """A hook: the program is killed at the ``nth`` point that it reaches."""
    return (
        f"reach.left = getattr(reach, 'left', {nth}) - 1\n"
        "    if not reach.left: import os; os.kill(os.getpid(), 9)"
    )


def acting(point: str, code: str) -> str:
    """A hook: at the first time that it reaches a point, this happens (one line of Python)."""
    return (
        f"if name == {point!r} and not getattr(reach, 'done', 0):\n"
        f"        reach.done = 1; import os, time; {code}"
    )


class Hooked(Program):
    """The program, with a hook at its points, which counts what it is asked."""

    hook = ""
    asked = 0

    def text(self) -> bytes:  # type: ignore[override]
        text = super().text()
        if not self.hook:
            return text
        hook = _HOOK.format(hook=self.hook).encode()
        return text.replace(b"module.main(", hook + b"module.main(")

    async def ask(self, op: str, kind: int, body: bytes) -> Answer:
        self.asked += 1
        return await super().ask(op, kind, body)


class WithProgram(SftpRemote):
    """Connected, it has a program that is ready; ``hook`` is of the next connection."""

    def __init__(self, url: Location, options: Mapping[str, str], wait: bool = True) -> None:
        super().__init__(url, {**options, "server_program": "auto"})
        self.hook = ""
        self.wait = wait

    def _program(self) -> Program:
        program: Any = super()._program()
        program.__class__ = Hooked
        program.hook = self.hook
        return program  # type: ignore[no-any-return]

    @property
    def program(self) -> Hooked:
        program = self._parts.by_program.program
        assert isinstance(program, Hooked)
        return program

    async def connect(self, witnesses: Sequence[RemotePath] = ()) -> Connected:
        self._may_run = True
        connected = await super().connect(witnesses)
        if self.wait:
            await self.ready()
        return connected

    async def ready(self) -> None:
        """Wait for the program; fails if there is none."""
        deadline = time.monotonic() + 20
        while not self.program.is_ready:
            assert not self.program._ended, self.program.why
            if time.monotonic() > deadline:
                raise Unreachable("no program")
            await asyncio.sleep(0.005)
