"""What commands can ask to decide: conflicts one or many at a time, and taking that back."""

from __future__ import annotations

import asyncio
import os
import shutil
import time
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

from awayfs.control.messages import ControlError, bytes_of, path_param, text_of
from awayfs.control.server import Done, Handler
from awayfs.core.conflicts import ConflictKind
from awayfs.core.deciding import BASE, CHOICES, WITH, told
from awayfs.core.errors import AwayfsError, RemoteError, UsageError
from awayfs.core.merge_rules import has_pattern, matches
from awayfs.core.records import RecordKind
from awayfs.core.types import Kind
from awayfs.daemon.shown import printable
from awayfs.store.conflicts import Conflict, Place
from awayfs.store.history import Lost
from awayfs.volume.losing import TooLarge
from awayfs.volume.slices import Slices
from awayfs.volume.virtual_conflicts import LOCAL
from awayfs.volume.volume import Volume

TOLD_EVERY_S = 0.1
FAILED_SHOWN = 1000
"""Failures told one by one; of the others, the number."""
Chosen = tuple[Place, bytes]
FORCED = "; --force gives it up all the same"
NOT_HERE = "is not here, and a tool would take it for empty; go online, or decide with --keep"


class ResolveApi:
    """Answers ``resolve`` and what belongs to it."""

    def __init__(self, volume: Callable[[], Volume]) -> None:
        self._volume = volume

    def handlers(self) -> Mapping[str, Handler]:
        """Method → handler."""
        return {
            "resolve": self._resolve,
            "conflict_checkout": self._checkout,
            "history": self._history,
            "undo": self._undo,
        }

    # -- which ----------------------------------------------------------------------------

    def _selected(self, params: dict[str, Any]) -> list[Chosen]:
        """The conflicts that a request is about, with their paths, oldest first.

        ``paths``: names, directories with all below, or patterns. ``kinds``: of these only.
        """
        volume = self._volume()
        kinds = params.get("kinds") or []
        unknown = [kind for kind in kinds if kind not in set(ConflictKind)]
        if unknown:
            raise ControlError(
                f"{unknown[0]}: no such kind; known are {', '.join(ConflictKind)}", "usage"
            )
        wanted = [path_param({"path": path}) for path in params.get("paths") or [""]]
        found: set[int] = set()
        tree = volume.virtual.conflicts
        located, named = (
            [one for one in places if not kinds or one[0].kind in kinds]
            for places in (tree.located(), tree.named())
        )
        for path in wanted:
            chosen = {place.id for place, at in named if path and at == path}
            chosen |= {place.id for place, _ in _chosen(path, located)}
            if not chosen:
                raise ControlError(_nothing(path, kinds), "not-found")
            found |= chosen
        return [one for one in located if one[0].id in found]

    # -- deciding -------------------------------------------------------------------------

    async def _resolve(self, params: dict[str, Any]) -> AsyncIterator[dict[str, Any] | Done]:
        """Decide: ``keep`` a variant, or take the file ``with``. ``dry_run`` only tells."""
        if "path" in params:
            params = {**params, "paths": [params["path"]]}
        given = params.get("with")
        choice = WITH if given is not None else str(params.get("keep", ""))
        if choice not in CHOICES or (choice == WITH) != (given is not None):
            raise ControlError(
                "resolve with keep local, server, both or base, or with a file", "usage"
            )
        selected = self._selected(params)
        if choice == WITH and len(selected) > 1:
            raise ControlError(
                f"these are {len(selected)} conflicts; a file decides one of them", "usage"
            )
        if params.get("dry_run"):
            yield Done({"would": await self._dry(selected, choice)})
            return
        decided: list[dict[str, Any]] = []
        failed: list[dict[str, str]] = []
        volume, told_again = self._volume(), 0.0
        async with volume.resolver.steps.together():
            for number, (place, path) in enumerate(selected):
                if time.monotonic() >= told_again:
                    told_again = time.monotonic() + TOLD_EVERY_S
                    yield {"done": number, "total": len(selected), "path": text_of(path)}
                try:
                    decided.append(await self._decide(place.id, choice, params))
                except (AwayfsError, OSError) as error:
                    if len(selected) == 1:
                        raise
                    failed.append({"path": text_of(path), "why": _reason(error)})
                    if isinstance(error, RemoteError) and not volume.link.usable:
                        break
        left = len(selected) - len(decided) - len(failed)
        yield Done(_answer(decided, failed, left))

    async def _dry(self, selected: list[Chosen], choice: str) -> list[dict[str, Any]]:
        """What a decision would do, and what of that could not be taken back."""
        volume, slices, would = self._volume(), Slices(), []
        for place, path in selected:
            conflict = volume.store.conflicts.get(place.id)
            text = told(place.kind, choice, self._record_kind(conflict))
            if conflict is not None and (why := self._impossible(conflict, choice)):
                text = f"nothing: {why}"
            elif conflict is not None:
                for which in volume.deciding.too_large(conflict, choice):
                    text += f"; {volume.losing.not_kept(which)}{FORCED}"
            would.append({"path": text_of(path), "kind": place.kind, "text": text})
            await slices.pause()
        return would

    def _impossible(self, conflict: Conflict, choice: str) -> str:
        """Why a content cannot decide a conflict; empty where it can, or none is to."""
        if choice == WITH or (choice == BASE and conflict.kind != ConflictKind.ATTRIBUTE):
            try:
                self._volume().deciding.check_content(conflict, choice)
            except UsageError as error:
                return str(error)
        return ""

    def _record_kind(self, conflict: Conflict | None) -> RecordKind | None:
        seqs = conflict.record_seqs if conflict is not None else ()
        record = self._volume().store.journal.get(seqs[0]) if seqs else None
        return record.kind if record is not None else None

    async def _decide(self, number: int, choice: str, params: dict[str, Any]) -> dict[str, Any]:
        try:
            return await self._decided(number, choice, params)
        except TooLarge as error:
            raise UsageError(f"{error}{FORCED}") from error

    async def _decided(self, number: int, choice: str, params: dict[str, Any]) -> dict[str, Any]:
        deciding, force = self._volume().deciding, bool(params.get("force"))
        if choice == WITH:
            staged = await deciding.staged_copy(bytes_of(str(params["with"])))
            seen = params.get("seen")
            token = bytes.fromhex(seen) if isinstance(seen, str) else None
            why = str(params.get("why") or "--with a file")
            made_from = str(params["made_from"]) if params.get("made_from") else None
            decided = await deciding.take(
                number, staged, why=why, seen=token, made_from=made_from, all_of_it=not force
            )
        else:
            decided = await deciding.keep(number, choice, all_of_it=not force)
        return {
            "path": text_of(decided.path),
            "kind": decided.kind,
            "kept": decided.kept,
            "copy": decided.copy and printable(decided.copy),
            "too_large": decided.too_large,
        }

    async def _checkout(self, params: dict[str, Any]) -> dict[str, Any]:
        """Copies of the variants of one conflict in a directory of the caller's, for a tool."""
        selected = self._selected({"paths": [params.get("path", "")]})
        if len(selected) > 1:
            raise ControlError(f"these are {len(selected)} conflicts; a tool gets one", "usage")
        place, path = selected[0]
        volume = self._volume()
        await volume.virtual.server_variants.complete(place.id)
        found = volume.store.conflicts.get(place.id)
        if found is None:
            raise ControlError(f"{text_of(path)}: is not in conflict any more", "not-found")
        record = next(filter(None, map(volume.store.journal.get, found.record_seqs)), None)
        volume.resolver.content.check(found, record)
        made_from = volume.resolver.content.witness(found.node)
        places = await self._copied(found, str(params.get("directory", "")))
        entry = found.server_entry
        local = volume.virtual.conflicts.variant_itself(found, LOCAL)
        if entry is not None and entry.kind is Kind.FILE and "server" not in places:
            raise ControlError(f"{text_of(path)}: the server's version {NOT_HERE}", "os")
        if local is not None and local.kind is Kind.FILE and "local" not in places:
            raise ControlError(f"{text_of(path)}: a part of our version {NOT_HERE}", "os")
        return {
            "id": found.id,
            "path": text_of(path),
            "seen": entry.token.hex() if entry is not None else None,
            "made_from": made_from,
            "variants": places,
        }

    async def _copied(self, conflict: Conflict, directory: str) -> list[str]:
        volume = self._volume()
        volume.context.opened.save_all()
        variants = volume.virtual.variants(conflict)
        loop = asyncio.get_running_loop()
        done: list[str] = []
        for name, variant in variants.items():
            if variant.kind is not Kind.FILE:
                continue
            target = os.path.join(directory, name.decode())
            if variant.path is not None:
                await loop.run_in_executor(None, shutil.copyfile, variant.path, target)
            elif variant.size:
                continue  # whole, but in pieces
            else:
                await loop.run_in_executor(None, _write, target, b"")
            done.append(name.decode())
        return done

    # -- taking it back -------------------------------------------------------------------

    async def _history(self, params: dict[str, Any]) -> dict[str, Any]:
        path = path_param(params, default="") if params.get("path") else b""
        history, prefix = self._volume().store.history, path + b"/"
        found = [
            lost
            for lost in history.all()
            if not path or lost.path == path or lost.path.startswith(prefix)
        ]
        return {"history": [_lost(lost) for lost in found]}

    async def _undo(self, params: dict[str, Any]) -> dict[str, Any]:
        path = path_param(params)
        which = params.get("which")
        undone = await self._volume().undo.undo(
            path, str(which) if which else None, force=bool(params.get("force"))
        )
        return {
            "path": text_of(undone.path),
            "which": undone.which,
            "why": undone.why,
            "made": undone.made,
            "left": [text_of(path) for path in undone.left],
        }


def _chosen(path: bytes, conflicts: list[Chosen]) -> list[Chosen]:
    """Those at the path and below it; else those whose path fits it as a pattern.

    A hard link below it alone is none of them: who decides about a directory has said nothing of a
    file that is shown elsewhere as well.
    """
    if not path:
        return conflicts
    prefix = path + b"/"
    chosen = [c for c in conflicts if c[1] == path or c[1].startswith(prefix)]
    pattern = text_of(path)
    if chosen or not has_pattern(pattern):
        return chosen
    return [c for c in conflicts if matches("./" + pattern, text_of(c[1]))]


def _nothing(path: bytes, kinds: list[str]) -> str:
    where = text_of(path) if path else "here"
    what = f" of the kind {' or '.join(kinds)}" if kinds else ""
    if not path or has_pattern(where):
        return f"{where}: nothing is in conflict{what}; see awayfs conflicts"
    return f"{where}: is not in conflict{what}; see awayfs conflicts"


def _answer(
    decided: list[dict[str, Any]], failed: list[dict[str, str]], left: int
) -> dict[str, Any]:
    """One decision is told as such, besides the lists that many of them need."""
    answer: dict[str, Any] = {
        "resolved": decided,
        "failed": failed[:FAILED_SHOWN],
        "failures": len(failed),
        "left": left,
    }
    return {**decided[0], **answer} if len(decided) == 1 and not failed else answer


def _reason(error: Exception) -> str:
    if isinstance(error, OSError):
        return error.strerror or str(error)
    return str(error)


def _lost(lost: Lost) -> dict[str, Any]:
    return {
        "id": lost.id,
        "decision": lost.conflict,
        "path": text_of(lost.path),
        "which": lost.which,
        "content": lost.content,
        "size": lost.size,
        "mtime_ns": lost.mtime_ns,
        "kept_ns": lost.kept_ns,
        "why": lost.why,
    }


def _write(path: str, data: bytes) -> None:
    with open(path, "wb") as file:
        file.write(data)
