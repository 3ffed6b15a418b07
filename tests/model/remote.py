"""The way to the server, in this process and on this thread, so that a run can be repeated.

Each call gives others their turn first, and is where a link is cut: before the server has done
anything, in the middle of it, or after it, the answer being lost. It is also where the server
refuses: before it has done anything, or in the middle of it, as where a disk is full then.
"""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, NoReturn, cast

from awayfs.core.errors import Refused, RemoteError, Unreachable
from awayfs.core.types import Outcome
from awayfs.ports.remote import Put, Remote
from awayfs.remotes import faults
from awayfs.remotes.directory import DirectoryRemote
from awayfs.remotes.directory_content import LocalFailure
from awayfs.remotes.directory_tree import translate
from awayfs.remotes.putting import put_each


class Inline(DirectoryRemote):
    """``dir:`` without threads."""

    async def _in_thread(self, _pool: Any, call: Callable[[], Any]) -> Any:
        await asyncio.sleep(0)
        try:
            return call()
        except LocalFailure:
            raise
        except OSError as error:
            raise translate(error) from error


class InlineExecutor(ThreadPoolExecutor):
    """What would run beside the event loop runs at once."""

    def submit(self, call: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        try:
            future.set_result(call(*args, **kwargs))
        except Exception as error:
            future.set_exception(error)
        return future


CHANGING = (
    "put",
    "stage",
    "stage_part",
    "replace",
    "discard_staged",
    "make",
    "link",
    "remove",
    "rename",
    "exchange",
    "set_attributes",
    "set_xattr",
    "settle",
)
TURNS = 6
"""Of the event loop, that somebody gets between an answer and what is made of it."""
LOOKING = ("stat", "list", "list_unless", "fetch", "digest", "xattrs")
FOR_CHANGES = (errno.EROFS, errno.EDQUOT, errno.ENOSPC, errno.ENAMETOOLONG)
"""Codes that only a call that changes something is refused with."""


@dataclass
class Refusal:
    """After ``calls`` calls, the next ``times`` of them are refused; those that may be so.

    ``inside``: in the middle, at this point of it; 0: before anything is done.
    """

    calls: int
    code: int
    inside: int = 0
    times: int = 1
    of: tuple[str, ...] = CHANGING + LOOKING

    def hits(self, name: str) -> bool:
        """Whether this call is to be refused; counts it."""
        self.calls -= 1
        of_changes = self.code in FOR_CHANGES or self.inside
        may_be = name in self.of and (name in CHANGING or not of_changes)
        if self.calls > 0 or self.times <= 0 or not may_be:
            return False
        self.times -= 1
        return True


def _refusing(code: int) -> Callable[[str], NoReturn]:
    def refuse(_name: str) -> NoReturn:
        raise OSError(code, os.strerror(code))

    return refuse


class Way:
    """Every method of a ``Remote``; ``dead`` once the daemon behind it died."""

    def __init__(
        self,
        root: bytes,
        client: str,
        on_call: Callable[[], None],
        seen: Callable[[], None],
        on_answer: Callable[[], bool],
    ) -> None:
        self._root = root
        self._client = client
        self._on_call = on_call
        self._seen = seen
        self._on_answer = on_answer
        self._remote = Inline(root, client)
        self.dead = False
        self.cut: tuple[int, str] | None = None
        self.refusal: Refusal | None = None

    async def connect(self, _witnesses: Any = ()) -> Any:
        """A new session, as a new worker would open it."""
        self._alive()
        self._remote = Inline(self._root, self._client)
        return await self._remote.connect()

    async def close(self) -> None:
        """Nothing to drop."""

    async def put_many(self, puts: Sequence[Put]) -> Sequence[Outcome | Exception]:
        """Each by itself, with what happens to it."""
        return await put_each(cast(Remote, self), puts)

    def __getattr__(self, name: str) -> Callable[..., Awaitable[Any]]:
        async def call(*args: Any) -> Any:
            self._alive()
            self._on_call()
            how = self._cut_now()
            if how == "before":
                raise Unreachable("cut before")
            if how.startswith("inside"):
                faults.arm(int(how[6:]))
            if self.refusal is not None and self.refusal.hits(name):
                self._refuse(self.refusal)
            try:
                result = await getattr(self._remote, name)(*args)
            except faults.Cut as cut:
                raise Unreachable(f"cut at {cut}") from None
            except (RemoteError, OSError):
                await self._answered()
                raise
            finally:
                faults.disarm()
            if how:
                raise Unreachable("cut after")
            if name in ("stat", "list", "list_unless"):
                self._seen()
            await self._answered()
            self._alive()
            return result

        return call

    def _refuse(self, refusal: Refusal) -> None:
        if not refusal.inside:
            raise Refused(refusal.code, os.strerror(refusal.code))
        faults.arm(refusal.inside)
        faults._cut = _refusing(refusal.code)

    async def _answered(self) -> None:
        """What somebody does between the answer and what is made of it."""
        if self._on_answer():
            for _ in range(TURNS):
                await asyncio.sleep(0)

    def _alive(self) -> None:
        if self.dead:
            raise Unreachable("the daemon died")

    def _cut_now(self) -> str:
        if self.cut is None:
            return ""
        left, how = self.cut
        self.cut = (left - 1, how) if left > 1 else None
        return "" if self.cut else how
