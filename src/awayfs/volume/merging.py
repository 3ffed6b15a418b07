"""Deciding conflicts by rule (``core.merge_rules``), as they are found.

A rule runs when the server can be asked and every variant that it needs is here, whole. What it
makes is decided for like a file that a person gives (``deciding``): guarded by the revision that
it was made from, with what loses in the history. Where it cannot decide, the conflict stays,
and its note says why; an unclean merge stays as the variant ``merged``.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import re
import shutil
import stat
import sys
from collections.abc import Callable, Mapping

from msgspec import Struct

from awayfs.core.deciding import takes_content
from awayfs.core.errors import RemoteError, UsageError
from awayfs.core.merge_rules import (
    DECIDABLE,
    Rule,
    Strategy,
    choice,
    decides,
    makes_content,
    needs_base,
    rule_for,
)
from awayfs.core.merging import has_markers
from awayfs.core.settings import Settings
from awayfs.core.types import Kind, NodeId, Range
from awayfs.store.conflicts import Conflict
from awayfs.store.files import clone_or_copy, fsync_path, unlink_quietly
from awayfs.volume import programs
from awayfs.volume.context import Context
from awayfs.volume.deciding import Deciding
from awayfs.volume.losing import Losing, TooLarge
from awayfs.volume.share_rules import ShareRules

log = logging.getLogger(__name__)

AT_ONCE = 4
SOON_S = 0.05
"""Conflicts come in swarms: they are looked at together."""
AGAIN_S = 5.0
"""A file that a program has open is tried again after this time."""
NOT_BY_RULE = "; not decided by rule "
LARGEST_LOOKED_AT = 64 << 20
"""Bytes of an outcome in which markers are looked for."""
NAMES = ("base", "local", "server", "merged")
_MARK = re.compile(r"\{(base|local|server|merged|path)\}")
ENVIRONMENT = ("PATH", "HOME", "USER", "LOGNAME", "LANG", "TZ")


class NotMerged(Exception):
    """Why a rule decided nothing, in one line."""


class Later(Exception):
    """Not now, but perhaps soon."""


class _Outcome(Struct, frozen=True):
    """A merged file, in a scratch directory; or why there is none."""

    path: str
    clean: bool


class Merging:
    """Tries each conflict once for each rule that comes to count for it."""

    def __init__(
        self,
        context: Context,
        share: ShareRules,
        deciding: Deciding,
        losing: Losing,
        path_of: Callable[[Conflict], bytes],
        base_of: Callable[[Conflict], str | None],
        witness: Callable[[NodeId], str],
    ) -> None:
        self._context = context
        self._store = context.store
        self._witness = witness
        self._share = share
        self._deciding = deciding
        self._losing = losing
        self._path_of = path_of
        self._base_of = base_of
        self._woken = asyncio.Event()
        self._last = 0
        self._again: set[int] = set()
        self._settings = Settings()
        self._decides = False

    @property
    def busy(self) -> bool:
        """Whether a conflict that was just found may be none in a moment."""
        return self._decides or self._woken.is_set()

    def wake(self) -> None:
        """A conflict was found."""
        self._woken.set()

    def wake_all(self) -> None:
        """The server is back: what could not be decided before may be now."""
        self._last = 0
        self._woken.set()

    async def run(self) -> None:
        """Decide what can be, whenever woken; runs until cancelled."""
        while True:
            await self._woken.wait()
            await asyncio.sleep(SOON_S)
            self._decides = True
            self._woken.clear()
            try:
                if await self._all():
                    asyncio.get_running_loop().call_later(AGAIN_S, self.wake)
            except Exception:
                log.exception("conflicts are not decided by rule for now")
            finally:
                self._decides = False

    async def _all(self) -> bool:
        """One pass; whether something is to be tried again soon."""
        settings = self._context.settings()
        if settings != self._settings:
            self._settings = settings
            self._last = 0
            for line in settings.complaints:
                log.warning("%s", line)
        waiting = sorted(self._again.union(self._store.conflicts.ids(after=self._last)))
        self._again.clear()
        self._last = max(waiting, default=self._last)
        left = iter(waiting)

        async def some() -> None:
            for number in left:
                if self._context.link.usable and not await self._try(number):
                    self._again.add(number)

        await asyncio.gather(*(some() for _ in range(AT_ONCE)))
        return bool(self._again)

    async def _try(self, number: int) -> bool:
        """One conflict; False when it is to be tried again soon."""
        conflict = self._store.conflicts.get(number)
        if conflict is None:
            return True
        rule: Rule | None = None
        try:
            path = self._path_of(conflict)
            node = self._store.nodes.get(conflict.node)
            there = conflict.server_entry
            if conflict.kind not in DECIDABLE:
                return True
            fitting = rule_for(path, [*self._settings.rules, *await self._share.of(path)])
            kinds = (node.kind if node else None, there.kind if there else None)
            if fitting is not None and decides(fitting.strategy, conflict.kind, *kinds):
                rule = fitting
                await self._by(rule, conflict, path)
        except Later:
            return False
        except NotMerged as error:
            self._note(number, rule, str(error))
        except TooLarge as error:
            self._note(number, rule, str(error))
        except UsageError as error:
            self._note(number, rule, str(error))
            return self._store.conflicts.get(number) is None  # else something was in the way
        except RemoteError as error:
            log.info("a rule cannot decide %r now: %s", path, error)
            return True  # once more when the server is back
        except OSError as error:
            self._note(number, rule, error.strerror or str(error))
        except Exception as error:  # of one conflict; the others are still decided
            log.exception("conflict %d is not decided by rule", number)
            self._note(number, rule, f"{type(error).__name__}, see daemon.log")
        return True

    async def _by(self, rule: Rule, conflict: Conflict, path: bytes) -> None:
        opened = self._context.opened.get(conflict.node)
        if opened is not None and (opened.writers or opened.passthrough):
            raise Later
        if not makes_content(rule.strategy):
            node, there = self._context.node(conflict.node), conflict.server_entry
            times = (node.mtime_ns if node else 0, there.mtime_ns if there else 0)
            decided = choice(rule.strategy, *times)
            if decided is None:
                raise NotMerged("both have the same time")
            await self._deciding.keep(
                conflict.id, str(decided), copy_name=rule.copy_name, all_of_it=True
            )
            log.info("%r: kept %s by rule %s", path, decided, rule.pattern)
            return
        await self._merge(rule, conflict, path)

    # -- making a content -----------------------------------------------------------------

    async def _merge(self, rule: Rule, conflict: Conflict, path: bytes) -> None:
        record = next(filter(None, map(self._store.journal.get, conflict.record_seqs)), None)
        if not takes_content(conflict.kind, record.kind if record else None):
            return
        conflict = await self._deciding.completed(conflict.id)
        there = conflict.server_entry
        if there is None or there.kind is not Kind.FILE:
            return
        scratch = self._store.content.stage_path() + ".scratch"
        os.mkdir(scratch, 0o700)
        try:
            made_from = self._witness(conflict.node)
            places = await self._laid_out(rule, conflict, path, scratch)
            outcome = await self._outcome(rule, path, places, scratch)
            if not outcome.clean:
                await self._offer(conflict, outcome.path)
                raise NotMerged("both changed the same; .awayfs/conflicts has it merged")
            staged = await self._deciding.staged_copy(outcome.path)
            why = f"rule {rule.pattern} ({rule.strategy})"
            await self._deciding.take(
                conflict.id,
                staged,
                why=why,
                seen=there.token,
                made_from=made_from,
                all_of_it=True,
            )
            log.info("%r: merged by %s", path, why)
        finally:
            loop = asyncio.get_running_loop()
            await asyncio.shield(
                loop.run_in_executor(None, lambda: shutil.rmtree(scratch, ignore_errors=True))
            )

    async def _laid_out(
        self, rule: Rule, conflict: Conflict, path: bytes, scratch: str
    ) -> dict[str, str]:
        """Copies of the variants in the scratch directory, each under the file's own name, as
        far as a shell has no use for its letters.

        Each has a directory to itself, so that no name from the share stands where a program
        looks for its own files. ``merged`` is where the outcome is expected.
        """
        name = _plain(os.fsdecode(path.rpartition(b"/")[2]))
        places = {which: f"{scratch}/{which}/{name}" for which in NAMES}
        for which in NAMES:
            os.mkdir(f"{scratch}/{which}", 0o700)
        local = await self._losing.copy_of(conflict.node)
        node = self._context.node(conflict.node)
        if local is None or node is None:
            raise NotMerged("our version is too large to be merged")
        os.rename(local, places["local"])
        if not self._store.content.covers(conflict.node, 0, node.size):
            raise NotMerged("a part of our version is not here")
        there = conflict.server_entry
        assert there is not None
        server = conflict.server_variant if conflict.server_complete else None
        if server is None and there.size:
            raise NotMerged("the server's version is not here, or too large")
        base = self._base_of(conflict)
        if base is None and needs_base(rule.strategy, conflict.kind):
            raise NotMerged("the version that both began with is not here")
        await self._copy(server, places["server"])
        await self._copy(base, places["base"])
        return places

    async def _copy(self, source: str | None, target: str) -> None:
        """A copy that a program may do with as it likes; an empty file for none."""
        if source is None:
            os.close(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
            return
        loop, limit = asyncio.get_running_loop(), self._losing.limits.one
        if not await loop.run_in_executor(None, _copied, source, target, limit):
            raise NotMerged("a version is too large to be merged")

    async def _outcome(
        self, rule: Rule, path: bytes, places: Mapping[str, str], scratch: str
    ) -> _Outcome:
        """Run the rule; what it left is checked. Raises ``NotMerged``."""
        largest = 2 * sum(os.stat(places[name]).st_size for name in NAMES[:3]) + (64 << 20)
        if rule.strategy is Strategy.COMMAND:
            environment = _environment(places, path, scratch)
            command = _filled(rule, places, path)
        else:
            # -P: the working directory is no place to import from
            module = [sys.executable, "-P", "-m", "awayfs.volume.merge_process"]
            command = [*module, str(rule.strategy), *(places[name] for name in NAMES)]
            environment = dict(os.environ)
        try:
            ended = await programs.run(command, scratch, environment, rule.time_limit_s, largest)
        except OSError as error:
            raise NotMerged(f"{command[0]}: {error.strerror}") from error
        if ended.status is None:
            raise NotMerged(f"it took longer than {rule.time_limit_s:g} s")
        if ended.status not in (0, 1):
            said = ended.said or (
                f"ended by signal {-ended.status}"
                if ended.status < 0
                else f"ended with status {ended.status}"
            )
            raise NotMerged(said)
        loop = asyncio.get_running_loop()
        why = await loop.run_in_executor(None, _why_not_usable, places)
        if why is not None:
            raise NotMerged(why)
        marked = await loop.run_in_executor(None, _has_markers, places["merged"])
        return _Outcome(places["merged"], ended.status == 0 and not marked)

    async def _offer(self, conflict: Conflict, path: str) -> None:
        """The unclean merge becomes the fourth variant."""
        staged = await self._deciding.staged_copy(path)
        try:
            if self._store.conflicts.get(conflict.id) is not None:
                os.rename(staged, self._store.conflicts.variant_path(conflict.id, "merged"))
        finally:
            unlink_quietly(staged)

    def _note(self, number: int, rule: Rule | None, why: str) -> None:
        conflict = self._store.conflicts.get(number)
        if conflict is None or rule is None:
            return
        told = conflict.note.partition(NOT_BY_RULE)[0]
        note = f"{told}{NOT_BY_RULE}{rule.pattern} ({rule.strategy}): {why}"
        if note != conflict.note:
            self._store.conflicts.update(number, note=note)
        log.info("conflict %d%s%s: %s", number, NOT_BY_RULE, rule.pattern, why)


def _plain(name: str) -> str:
    """A name from the share as one that is a word, and nothing else, in a user's command."""
    return "".join(c if c.isalnum() or c in "._+,@%-" else "_" for c in name)


def _environment(places: Mapping[str, str], path: bytes, scratch: str) -> dict[str, str]:
    """What a program of the user's is told."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if name in ENVIRONMENT or name.startswith("LC_")
    }
    return {
        **kept,
        "TMPDIR": scratch,
        "BASE": places["base"],
        "LOCAL": places["local"],
        "REMOTE": places["server"],
        "MERGED": places["merged"],
        "AWAYFS_PATH": os.fsdecode(path),
    }


def _filled(rule: Rule, places: Mapping[str, str], path: bytes) -> list[str]:
    """The command with its places; without any, the four come last. Never a shell's business."""
    shown = os.fsdecode(path)
    values = {**places, "path": f"./{shown}" if shown.startswith("-") else shown}
    filled = [_MARK.sub(lambda mark: values[mark[1]], part) for part in rule.command[1:]]
    if filled == list(rule.command[1:]):
        filled += [places[name] for name in NAMES]
    return [rule.command[0], *filled]


def _copied(source: str, target: str, limit: int) -> bool:
    size = os.stat(source).st_size
    return clone_or_copy(source, target, [Range(0, size)] if size else [], limit) is not None


def _why_not_usable(places: Mapping[str, str]) -> str | None:
    """What is wrong with the outcome of a program; blocking."""
    try:
        status = os.lstat(places["merged"])
    except OSError as error:
        if error.errno == errno.ENOENT:
            return "it left no merged file"
        return f"its merged file: {error.strerror}"
    if not stat.S_ISREG(status.st_mode):
        return "what it left is not a regular file"
    if not status.st_size and all(os.stat(places[w]).st_size for w in ("local", "server")):
        return "it left an empty file"
    fsync_path(places["merged"])
    return None


def _has_markers(path: str) -> bool:
    """Whether conflict markers are left; only text has any. Blocking."""
    if os.stat(path).st_size > LARGEST_LOOKED_AT:
        return False
    with open(path, "rb") as file:
        return has_markers(file.read())
