"""A remote that fails as a plan says: ``python -m awayfs.testing.faulty`` in the worker's place.

``AWAYFS_WORKER=awayfs.testing.faulty`` has a daemon start this instead of
``awayfs.remotes.worker``. Around the real adapter it looks at every call in the file that
``AWAYFS_TROUBLE`` names, which a test rewrites while the mount lives (``Plan``). What it does
happens to the adapter's own answers, behind the daemon's deadline and recovery: a refusal, a
call that is never answered, one that waits until the test lets it go, one that was executed and
whose answer is lost with the process.
"""

from __future__ import annotations

import asyncio
import errno
import os
import signal
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, NoReturn, cast

import msgspec

from awayfs.core import errors
from awayfs.core.types import Committed, Outcome
from awayfs.ports.remote import Intent, Put, Remote
from awayfs.remotes import progress, worker
from awayfs.remotes.opening import build_adapter
from awayfs.remotes.putting import put_each

MODULE = "awayfs.testing.faulty"
HOLD_STEP_S = 0.02
MUTATIONS = (
    "put",
    "stage",
    "replace",
    "make",
    "link",
    "remove",
    "rename",
    "exchange",
    "set_attributes",
    "set_xattr",
)

SAME_AS = {
    "list_unless": ("list",),
    "fetch_many": ("fetch",),
    "put": ("put", "stage", "replace"),
}
"""What a plan need not tell apart."""


class Trouble(msgspec.Struct, frozen=True):
    """What happens to some calls.

    ``calls`` are names of ``Remote``'s methods; ``under`` is the path they are about, or one
    above it (for ``stage`` the directory counts, its only path). ``what``:

    * an errno's name: refused with it
    * an error's name of ``core/errors.py``: that error
    * ``hang``: nothing, and no sign of life, until it is lifted
    * ``hold``, ``hold-answer``: waits before, or after, it is carried out, until it is lifted
    * ``lose-answer``: carried out, and the process dies; ``once``
    * ``rewrite:DIRECTORY``: carried out, and the file below that local directory is given other
      line endings before the answer; ``rewrite-and-lose:DIRECTORY``: and the process dies
    """

    name: str
    calls: tuple[str, ...]
    under: str
    what: str
    once: bool = False

    def is_about(self, call: str, paths: list[bytes]) -> bool:
        """Whether a call is meant; ``move-out`` is a rename to a place that is not."""
        place = os.fsencode(self.under)
        inside = [not place or path == place or path.startswith(place + b"/") for path in paths]
        if "move-out" in self.calls and call in ("rename", "exchange") and not all(inside):
            return any(inside)
        return call in self.calls and any(inside)


class Plan:
    """The file with the troubles of this moment; both sides use it."""

    def __init__(self, path: str) -> None:
        self.path = path

    @property
    def environment(self) -> dict[str, str]:
        """What a daemon needs to have its remote fail by this plan."""
        return {"AWAYFS_WORKER": MODULE, "AWAYFS_TROUBLE": self.path}

    def read(self) -> list[Trouble]:
        """All troubles; none before the first was set."""
        try:
            with open(self.path, "rb") as file:
                return msgspec.json.decode(file.read(), type=list[Trouble])
        except FileNotFoundError:
            return []

    def add(self, *troubles: Trouble) -> None:
        """From now on."""
        self._write([*self.read(), *troubles])

    def lift(self, *names: str) -> None:
        """No longer; without names, nothing at all fails any more."""
        self._write([t for t in self.read() if names and t.name not in names])

    def note(self, trouble: Trouble) -> bool:
        """Leave a mark that it happened; False when it had happened before."""
        try:
            os.close(os.open(self._mark(trouble.name), os.O_CREAT | os.O_EXCL))
        except FileExistsError:
            return False
        return True

    def happened(self, name: str) -> bool:
        """Whether a trouble was met."""
        return os.path.exists(self._mark(name))

    def _mark(self, name: str) -> str:
        return f"{self.path}.{name}"

    def _write(self, troubles: list[Trouble]) -> None:
        with open(self.path + ".new", "wb") as file:
            file.write(msgspec.json.encode(troubles))
        os.rename(self.path + ".new", self.path)


class Faulty:
    """Every method of a ``Remote``, with the troubles of a plan."""

    def __init__(self, remote: Remote, plan: Plan) -> None:
        self._remote = remote
        self._plan = plan

    async def put_many(self, puts: Sequence[Put]) -> Sequence[Outcome | Exception]:
        """Each by itself, with what happens to it."""
        return await put_each(cast(Remote, self), puts)

    def __getattr__(self, call: str) -> Callable[..., Awaitable[Any]]:
        operation = getattr(self._remote, call)

        async def run(*args: Any) -> Any:
            trouble = self._trouble_for(call, args)
            if trouble is None:
                return await operation(*args)
            if not self._plan.note(trouble) and trouble.once:
                return await operation(*args)
            await self._before(trouble)
            result = await operation(*args)
            return await self._after(trouble, args, result)

        return run

    def _trouble_for(self, call: str, args: tuple[Any, ...]) -> Trouble | None:
        paths = [arg for arg in args if isinstance(arg, bytes)]
        paths += [arg.path for arg in args if isinstance(arg, Intent)]
        if call == "fetch_many":  # content comes by whatever way it takes
            paths = [piece.path for piece in args[0]]
        names = SAME_AS.get(call, (call,))
        plan = self._plan.read()
        return next((t for t in plan if any(t.is_about(name, paths) for name in names)), None)

    async def _before(self, trouble: Trouble) -> None:
        if trouble.what in ("hang", "hold"):
            await self._held(trouble)
        elif trouble.what not in ("hold-answer", "lose-answer") and ":" not in trouble.what:
            _fail(trouble.what)

    async def _after(self, trouble: Trouble, args: tuple[Any, ...], result: Any) -> Any:
        what, _, directory = trouble.what.partition(":")
        if what == "hold-answer":
            await self._held(trouble)
        elif what.startswith("rewrite"):
            path = next(arg for arg in args if isinstance(arg, bytes))
            _rewrite(os.path.join(os.fsencode(directory), path))
            result = Committed(await self._remote.stat(path))
        if what in ("lose-answer", "rewrite-and-lose"):
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    async def _held(self, trouble: Trouble) -> None:
        """Not an answer; with signs of life, nobody gives the call up."""
        while trouble in self._plan.read():
            if trouble.what != "hang":
                progress.tick()
            await asyncio.sleep(HOLD_STEP_S)


def _rewrite(path: bytes) -> None:
    with open(path, "rb+") as file:
        lines = b"\r\n".join(file.read().replace(b"\r\n", b"\n").split(b"\n"))
        file.seek(0)
        file.write(lines)


def _fail(what: str) -> NoReturn:
    code = getattr(errno, what, None)
    if code is not None:
        raise errors.Refused(code, f"{os.strerror(code)} (by plan)")
    error: type[errors.RemoteError] = getattr(errors, what)
    raise error("by plan")


def _build(url: str, options: Mapping[str, str]) -> Remote:
    plan = Plan(os.environ["AWAYFS_TROUBLE"])
    return cast(Remote, Faulty(build_adapter(url, options), plan))


if __name__ == "__main__":
    worker.main(_build)
