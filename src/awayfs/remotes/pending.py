"""A call to a worker that is under way."""

from __future__ import annotations

import asyncio
from functools import cache
from typing import Any

import msgspec

from awayfs.remotes import protocol as p


class Pending:
    """What is known of it; ``deadline``: seconds without a sign of progress."""

    def __init__(self, loop: asyncio.AbstractEventLoop, call: p.Call, deadline: float) -> None:
        self.call = call
        self.future: asyncio.Future[Any] = loop.create_future()
        self.parts: list[Any] = []
        self.stall = deadline
        self.begun = loop.time()
        self.due = self.begun + deadline

    @property
    def is_transfer(self) -> bool:
        """Whether it waits its turn behind others that move content."""
        return self.call.bulk or self.call.background

    def answer(self, value: msgspec.Raw) -> None:
        """Its value came. Raises ``DecodeError``."""
        last = _decoder(self.call.Result).decode(value)
        value = self.call.joined(self.parts, last) if self.parts else last
        if not self.future.done():
            self.future.set_result(value)

    def take_part(self, value: msgspec.Raw) -> None:
        """Some of its value came. Raises ``DecodeError``."""
        self.parts += _decoder(self.call.Part).decode(value)

    def fail(self, error: Exception) -> None:
        """It raised this."""
        if not self.future.done():
            self.future.set_exception(error)

    def leave(self) -> asyncio.Future[Any]:
        """The caller was cancelled: what tells of the end of the call from now on."""
        self.future = self.future.get_loop().create_future()
        self.future.add_done_callback(_seen)
        return self.future


@cache
def _decoder(kind: Any) -> msgspec.msgpack.Decoder[Any]:
    return msgspec.msgpack.Decoder(kind)


def _seen(future: asyncio.Future[Any]) -> None:
    """Take note of an exception that the caller, cancelled, will not ask for."""
    if not future.cancelled():
        future.exception()
