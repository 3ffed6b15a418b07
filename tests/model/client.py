"""One awayfs client: store, volume and link, without a mount; and what is decided on it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

from awayfs.control.messages import text_of
from awayfs.core.errors import UsageError
from awayfs.daemon.api_session import SessionApi
from awayfs.store.conflicts import Conflict
from tests.model.programs import Programs

T = TypeVar("T")


class Client(Programs):
    """A client named by one letter, with a state that outlives its daemons."""

    async def resolve(self, conflict: Conflict, keep: str) -> None:
        """Decide. That gives nothing up: what loses is in the history."""
        async with self.sending():  # what moved on is met anew
            await self.volume.deciding.keep(conflict.id, str(keep))

    async def _decide(self, number: int, choice: str) -> None:
        await self.resolve(self._one_of(self.store.conflicts.all(), number), choice)

    async def _discard(self, number: int) -> None:
        """``awayfs discard`` of something that was changed, or of all; it goes to the history."""
        api = SessionApi(lambda: self.volume)
        params: dict[str, Any] = {"all": True}
        if number >= 0:
            changed = sorted({d.path for d in await api._session.differences()})
            params = {"paths": [text_of(self._one_of(changed, number))]}
        async with self.sending():
            async for _ in api._discard(params):
                pass

    async def _drop(self, number: int) -> None:
        """``awayfs journal drop``."""
        seq = self._one_of(list(self.store.journal.all()), number).seq
        params = {"seq": seq, "others": True}
        async with self.sending():
            await SessionApi(lambda: self.volume)._drop(params)

    async def _undo(self, number: int, force: bool) -> None:
        """``awayfs undo`` of any decision, not only the last one."""
        lost = self._one_of(self.store.history.all(), number)
        async with self.sending():
            await self.volume.undo.undo(lost.path, force=force)

    async def _cull(self) -> None:
        """``awayfs cull``: all content that is on the server as well goes."""
        await self.volume.culling.empty()

    def _one_of(self, found: Sequence[T], number: int) -> T:
        if not found:
            raise UsageError("there is none")
        return found[number % len(found)]
