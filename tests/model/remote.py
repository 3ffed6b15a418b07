"""The way to the server, in this process and on this thread, so that a run can be repeated.

Each call gives others their turn first, and is where a link is cut: before the server has done
anything, in the middle of it, or after it, the answer being lost.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from awayfs.core.errors import Unreachable
from awayfs.remotes import faults
from awayfs.remotes.directory import DirectoryRemote
from awayfs.remotes.directory_content import LocalFailure
from awayfs.remotes.directory_tree import translate


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


class Way:
    """Every method of a ``Remote``; ``dead`` once the daemon behind it died."""

    def __init__(
        self, root: bytes, client: str, on_call: Callable[[], None], seen: Callable[[], None]
    ) -> None:
        self._root = root
        self._client = client
        self._on_call = on_call
        self._seen = seen
        self._remote = Inline(root, client)
        self.dead = False
        self.cut: tuple[int, str] | None = None

    async def connect(self) -> Any:
        """A new session, as a new worker would open it."""
        self._alive()
        self._remote = Inline(self._root, self._client)
        return await self._remote.connect()

    async def close(self) -> None:
        """Nothing to drop."""

    def __getattr__(self, name: str) -> Callable[..., Awaitable[Any]]:
        async def call(*args: Any) -> Any:
            self._alive()
            self._on_call()
            how = self._cut_now()
            if how == "before":
                raise Unreachable("cut before")
            if how.startswith("inside"):
                faults.arm(int(how[6:]))
            try:
                result = await getattr(self._remote, name)(*args)
            except faults.Cut as cut:
                raise Unreachable(f"cut at {cut}") from None
            finally:
                faults.disarm()
            if how:
                raise Unreachable("cut after")
            if name in ("stat", "list", "list_unless"):
                self._seen()
            self._alive()
            return result

        return call

    def _alive(self) -> None:
        if self.dead:
            raise Unreachable("the daemon died")

    def _cut_now(self) -> str:
        if self.cut is None:
            return ""
        left, how = self.cut
        self.cut = (left - 1, how) if left > 1 else None
        return "" if self.cut else how
