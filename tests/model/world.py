"""Everything of one run: the share, the clients, what happens to them, and what must hold."""

from __future__ import annotations

import asyncio
import math
import os
import random
import shutil
import stat
import tempfile
import time
from collections import Counter
from collections.abc import Coroutine
from dataclasses import replace
from pathlib import Path
from typing import Any

from awayfs.core.conflicts import Resolution
from awayfs.core.errors import AwayfsError, RemoteError
from awayfs.core.records import RecordState
from awayfs.remotes.directory_facts import FileSystem
from awayfs.store import store as store_module
from awayfs.store.fsck import check
from awayfs.volume import fault as fault_module
from awayfs.volume import searching, slices
from awayfs.volume.resolve_partial import NOTE, PART
from tests.model.acknowledged import Acknowledged
from tests.model.beside import Beside
from tests.model.client import Client
from tests.model.daemon import Died
from tests.model.disk import OneFan, make_folders
from tests.model.ledger import Ledger, is_whole
from tests.model.remote import InlineExecutor
from tests.model.share import Share, Tree

ROUNDS = 12
WAITED_S = 12.0
done: Counter[str] = Counter()
"""What happened in all runs of this process, and how often it went well."""
MEMORY = "/dev/shm"
STAGED = ".awayfs-"


class Broken(AssertionError):
    """A promise was not kept."""


class World:
    """One share and its clients."""

    def __init__(self, decisions: int = 0, always: str | None = None, *, ids: bool = True) -> None:
        in_memory = os.access(MEMORY, os.W_OK)
        self.base = Path(tempfile.mkdtemp(prefix="awayfs-m-", dir=MEMORY if in_memory else None))
        self.loop = asyncio.new_event_loop()
        self.loop.set_default_executor(InlineExecutor(1))
        self.loop.set_exception_handler(lambda _loop, _context: None)
        self.ledger = Ledger()
        self.share = Share(self.base / "share", self.ledger)
        self.clients: dict[str, Client] = {}
        self.rng = random.Random(decisions)
        self.always = always
        self.ids = ids
        self.log: list[str] = []
        self.amid: tuple[int, tuple[Any, ...]] | None = None
        self.busy = False
        self.beside = Beside(self._begin_beside)
        self._replaced = [
            _replace(searching, "JUST_NOW_NS", 0),
            _replace(slices, "SLICE_S", math.inf),  # else others' turns depend on the clock
            _replace(fault_module, "os", fault_module.os),  # ``Client.arm`` does
            _replace(store_module, "Files", OneFan),
            *([] if ids else [_replace(FileSystem, "file_id", lambda *_: None)]),
            _replace(store_module, "make_folders", make_folders),
        ]

    def have_instead(self, *values: tuple[Any, str, Any]) -> None:
        """Have other values in modules, as long as this lasts."""
        self._replaced += [_replace(*one) for one in values]

    def close(self) -> None:
        """Take everything away."""
        fault_module._wanted = ""
        for module, name, value in self._replaced:
            setattr(module, name, value)
        try:
            for task in asyncio.all_tasks(self.loop):
                task.cancel()  # there are some where a sequence was broken off
            for client in self.clients.values():
                client.way.dead = True
                self.loop.run_until_complete(client._abandon())
        finally:
            self.loop.close()
            shutil.rmtree(self.base)

    # -- what happens ---------------------------------------------------------------------

    def client(self, name: str) -> Client:
        """A client; at its first use it has looked at everything."""
        if name not in self.clients:
            self.share.note_versions()
            self.clients[name] = Client(
                name,
                self.base,
                self.share,
                self.loop,
                self._on_call,
                self._seen,
                self.beside.turn,
            )
            self.loop.run_until_complete(self.clients[name].sync())
            self.quiet(self.clients[name])
        return self.clients[name]

    def act(self, who: str, op: tuple[Any, ...]) -> None:
        """One operation of a client, or of somebody on the server (``s``)."""
        if who == "s":
            self.serve(op)
            return
        client = self.client(who)
        self.do(client, f"{who}: {op}", client.act(op))

    def serve(self, op: tuple[Any, ...], when: str = "") -> None:
        """Somebody works on the server."""
        try:
            self.share.act(op)
            self.log.append(f"s: {op}{when}")
            done[f"s {op[0]}"] += 1
        except OSError as error:
            self.log.append(f"s: {op}{when}: {error.strerror or error}")

    def do(self, client: Client, what: str, work: Coroutine[Any, Any, None]) -> bool:
        """Have a client do something; it may die, or the link may. True if it went well."""
        outcome, well = "", False
        index = len(self.log)
        self.log.append(what)
        began = time.monotonic(), time.process_time()
        try:
            self.loop.run_until_complete(self.beside.through(client, work))
            self.quiet(client)
            well = client.left is None
            done[_kind(what)] += 1
        except Died:
            pass
        except (OSError, AwayfsError) as error:
            outcome = f": {getattr(error, 'strerror', None) or error!r}"
        if client.left is not None:
            outcome += ": died"
            done["died"] += 1
            self.loop.run_until_complete(client.die())
        self.log[index] += outcome
        self.share.note_versions()
        self._check_not_waiting(*began)
        self._check_parked(client)
        return well

    def quiet(self, client: Client) -> None:
        self.loop.run_until_complete(client.quiet())

    def _on_call(self) -> None:
        self.beside.turn()
        if self.amid is None:
            return
        left, op = self.amid
        self.amid = (left - 1, op) if left > 1 else None
        if self.amid is None:
            self.serve(op, " (amid)")

    def _begin_beside(self, who: str, op: tuple[Any, ...]) -> asyncio.Task[None] | None:
        """What is done while a client does something else; None where it is done already."""
        if who == "s":
            self.serve(op, " (amid)")
            return None
        return self.loop.create_task(self._done_beside(self.client(who), op))

    async def _done_beside(self, client: Client, op: tuple[Any, ...]) -> None:
        outcome, index = "", len(self.log)
        self.log.append(f"{client.name}: {op} (amid)")
        try:
            await client.act(op)
            done[f"amid {op[0]}"] += 1
        except Died:
            pass  # whoever waits for it sees that
        except (OSError, AwayfsError) as error:
            outcome = f": {getattr(error, 'strerror', None) or error!r}"
        self.log[index] += outcome

    def _seen(self) -> None:
        """Somebody looked at the server while others may be at work there."""
        if self.busy:
            self.share.note_versions()

    async def together(self) -> None:
        """All clients synchronise at the same time."""
        self.busy = True
        syncs = [client.sync() for client in self.clients.values()]
        outcomes = await asyncio.gather(*syncs, return_exceptions=True)
        for outcome in outcomes:
            if isinstance(outcome, BaseException) and not isinstance(
                outcome, OSError | RemoteError
            ):
                raise outcome

    # -- the end --------------------------------------------------------------------------

    def converge(self) -> None:
        """Everybody comes online, all is decided, and all promises are checked."""
        self.amid = None
        for client in self.clients.values():
            client.disarm()
            client.way.cut = client.way.refusal = None
            if client.held is not None:
                self.do(client, f"{client.name}: release", client.act(("release",)))
        self.check_kept("before the end")
        for _ in range(ROUNDS):
            for client in self.clients.values():
                self._settle(client)
            if self._at_rest() and not self._differences():
                break
        else:
            raise Broken("it does not come to rest" + self._pending() + self._differences())
        self.check_kept("at the end")
        self._check_no_second_sync()
        self._check_clean()

    def _settle(self, client: Client) -> None:
        self.do(client, f"{client.name}: sync", client.sync())
        for conflict in client.store.conflicts.all():
            if client.store.conflicts.get(conflict.id) is not None:
                self._decide(client, conflict)
        if client.store.journal.count():
            self.do(client, f"{client.name}: sync", client.sync())

    def _decide(self, client: Client, conflict: Any) -> None:
        """By any choice, or ``always`` by the same where it is possible: each comes to an end."""
        choices = list(Resolution)
        start = self.rng.randrange(len(choices))
        if self.always is not None:
            start = choices.index(Resolution(self.always))
        for keep in choices[start:] + choices[:start]:
            what = f"{client.name}: resolve {conflict.kind} {conflict.name!r} --keep {keep}"
            if self.do(client, what, client.resolve(conflict, keep)):
                return
            if client.store.conflicts.get(conflict.id) is None:
                return  # the server had moved on: it was found anew, and is decided anew
        raise Broken(f"no decision is possible for {conflict}")

    def resolve(self, who: str, number: int, keep: Resolution) -> None:
        """Decide one conflict of a client."""
        client = self.client(who)
        conflicts = client.store.conflicts.all()
        if conflicts:
            conflict = conflicts[number % len(conflicts)]
            what = f"{who}: resolve {conflict.kind} {conflict.name!r} --keep {keep}"
            self.do(client, what, client.resolve(conflict, keep))

    def _at_rest(self) -> bool:
        return not any(
            c.store.conflicts.count() or c.store.journal.count() for c in self.clients.values()
        )

    def _pending(self) -> str:
        lines = []
        for client in self.clients.values():
            lines += [f"\n{client.name}: {r}" for r in client.store.journal.all()]
            lines += [f"\n{client.name}: {c}" for c in client.store.conflicts.all()]
            lines.append(f"\n{client.name}: {client.volume.link.state}")
        return "".join(lines)

    # -- what must hold -------------------------------------------------------------------

    def kept(self) -> set[bytes]:
        """Every token that is still somewhere."""
        found = set(self.share.tokens())
        for client in self.clients.values():
            found |= client.kept()
        return found

    def check_kept(self, when: str) -> None:
        """Nothing is lost, and no content is torn."""
        lost = self.ledger.owed - self.kept()
        if lost:
            raise Broken(f"lost {when}: {sorted(lost)}")
        for where, tree in self._trees().items():
            for path, (kind, *rest) in tree.items():
                staged = os.path.basename(path).startswith(STAGED)
                if kind != "file" or staged or path.endswith(os.fsdecode(NOTE)):
                    continue
                partial = os.fsdecode(PART) in path
                if isinstance(rest[1], bytes) and not is_whole(rest[1], partial=partial):
                    raise Broken(f"torn in {where}: {path} {rest[1]!r}")

    def _check_not_waiting(self, began: float, worked: float) -> None:
        """Nobody waits for what does not come: all that takes time here is work."""
        waited = time.monotonic() - began, time.process_time() - worked
        if waited[0] > WAITED_S and waited[1] < WAITED_S / 4:
            raise Broken(f"waited for {waited[0]:.0f} s" + self._pending())

    def _check_parked(self, client: Client) -> None:
        """What waits for a decision is shown to whoever is to decide."""
        shown = {seq for c in client.store.conflicts.all() for seq in c.record_seqs}
        for record in client.store.journal.all():
            if record.state is RecordState.PARKED and record.seq not in shown:
                raise Broken(f"parked without a conflict: {record}")

    def check_no_conflict(self) -> None:
        """Nobody acted beside anybody else, so nothing may be in conflict, and all is sent."""
        for client in self.clients.values():
            if self._differences():  # what was seen to have come from a directory is listed anew
                self.do(client, f"{client.name}: look", client.look())
        if not self._at_rest():
            raise Broken("not at rest though there was no concurrent change" + self._pending())
        self.check_same()

    def _trees(self) -> dict[str, Tree]:
        return {"server": self.share.tree(), **{n: c.tree() for n, c in self.clients.items()}}

    def _differences(self) -> str:
        """Where a client's tree is not the server's."""
        wanted = self._alike(self.share.tree())
        return "".join(
            f"\n{path}: server {wanted.get(path)}, {client.name} {tree.get(path)}"
            for client in self.clients.values()
            for tree in [self._alike(client.tree())]
            for path in sorted(wanted.keys() | tree.keys())
            if wanted.get(path) != tree.get(path)
        )

    def _alike(self, tree: Tree) -> Tree:
        """Without ids, which names are of one file is not to be known."""
        if self.ids:
            return tree
        return {p: (*it[:3], ()) if it[0] == "file" else it for p, it in tree.items()}

    def check_stands(self, acknowledged: Acknowledged) -> None:
        """Nobody else did anything: the server has what a client had after its last change.

        Without ids, a name shows the mode and the time that were given to another one of its file.
        """
        seen = {*acknowledged.tree, *self.share.tree()} if not self.ids else ()
        shared = {path for path in seen if _names(self.share.root / path) > 1}

        def alike(tree: Tree) -> Tree:
            tree = self._alike(tree)
            return {p: (it[0], "", *it[2:]) if p in shared else it for p, it in tree.items()}

        times = {p: time for p, time in acknowledged.times.items() if p not in shared}
        if missing := replace(acknowledged, times=times).missing(self.share, alike):
            raise Broken(f"not the same as was acknowledged: {missing}")

    def check_same(self) -> None:
        """All trees are one."""
        if differences := self._differences():
            raise Broken("not the same:" + differences)

    def _check_no_second_sync(self) -> None:
        before = self.share.stamps()
        for client in self.clients.values():
            client.go_offline()
            if not self.do(client, f"{client.name}: second sync", client.sync()):
                raise Broken("the second sync failed")
        if not self._at_rest():
            raise Broken("the second sync has something to do" + self._pending())
        after = self.share.stamps()
        if after != before:
            changed = {p: (before.get(p), after.get(p)) for p in before.keys() | after.keys()}
            shown = [f"\n{p}: {b} -> {a}" for p, (b, a) in changed.items() if a != b]
            raise Broken("the second sync changes the server:" + "".join(shown))

    def _check_clean(self) -> None:
        for at, directories, files in os.walk(self.share.root):
            for name in directories + files:
                if name.startswith(STAGED):
                    raise Broken(f"left over on the server: {at}/{name}")
        for client in self.clients.values():
            problems = [p for p in check(client.store) if not p.leftover]
            if problems:
                raise Broken(f"fsck of {client.name}: {problems}")


def _names(path: Path) -> int:
    """How many a file has; of a directory, or where nothing is, none."""
    try:
        status = path.lstat()
    except OSError:
        return 0
    return 0 if stat.S_ISDIR(status.st_mode) else status.st_nlink


def _kind(what: str) -> str:
    """What is counted of a line of the log."""
    _, _, rest = what.partition(": ")
    words = rest.replace("(", " ").replace("'", " ").replace(",", " ").split()
    if words[0] == "resolve":
        return f"resolve {words[1]} {words[-1]}"
    return words[0]


def _replace(module: Any, name: str, value: Any) -> tuple[Any, str, Any]:
    """Put something in a module, and tell what is to be put back."""
    before = getattr(module, name)
    setattr(module, name, value)
    return module, name, before
