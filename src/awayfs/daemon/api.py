"""What commands can ask of the daemon: one handler a method (``awayfs.control``)."""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

from awayfs.control import paths
from awayfs.control.handshake import StartRequest
from awayfs.control.messages import ControlError, path_param, text_of
from awayfs.control.server import Done, Handler
from awayfs.control.urls import server_of
from awayfs.core.errors import DISCONNECTED_NAME, RemoteError, UsageError
from awayfs.core.events import EventReader
from awayfs.core.modes import Mode
from awayfs.core.pace import Estimate
from awayfs.core.records import Record, RecordKind, RecordState
from awayfs.core.sending import Policy
from awayfs.daemon.api_conflicts import ConflictApi
from awayfs.daemon.api_hoard import HoardApi
from awayfs.daemon.api_modes import ModeApi
from awayfs.daemon.api_resolve import ResolveApi
from awayfs.daemon.api_session import SessionApi
from awayfs.daemon.api_settings import SettingsApi
from awayfs.daemon.shown import entry_facts, pairs_of, printable
from awayfs.daemon.standing_orders import StandingOrders
from awayfs.fuse import mount as mounting
from awayfs.volume.changes import RESERVED
from awayfs.volume.context import SECOND_NS
from awayfs.volume.hoard import Walk
from awayfs.volume.meter import Way
from awayfs.volume.mode_history import told
from awayfs.volume.slices import Slices
from awayfs.volume.volume import Volume

SYNC_TICK_S = 0.1
JOURNAL_BATCH = 100
SHOWN_MODES = 40
EVENTS_AT_A_TIME = 64 << 10
"""Bytes: longer than any event, so that lines stay whole."""
DELETIONS_ACCEPTED_NS = 600 * SECOND_NS
HELP = {
    "EDISCONDATA": ["go online, or pin the file (awayfs pin) before going offline"],
    "EDISCONNECTED": ["go online, or list the directory once while connected"],
    "EDISCONPERM": ["go online, and ask who owns it on the server to let you in"],
    "EDISCONFULL": [
        "mount with a larger cache-size, unpin something, or send (awayfs online, awayfs sync)"
    ],
    "ECONFLICTED": ["awayfs conflicts shows it, awayfs resolve decides it"],
}
HELD = {
    Policy.LAZY: "its changes are sent when it is used, or the mount is idle (reintegrate=lazy)",
    Policy.MANUAL: "its changes wait for awayfs sync (reintegrate=manual)",
}
RESTS = "its changes rest for a while before they go out over a weak link (setting ageing)"
SENDS_NOW = "awayfs sync sends them now"


class Api:
    """Answers commands for one volume."""

    volume: Volume
    orders: StandingOrders

    def __init__(self, request: StartRequest, end: Callable[[], None]) -> None:
        self._request = request
        self._end = end
        self.lazy = False

    def handlers(self) -> Mapping[str, Handler]:
        """Method → handler."""
        return {
            "ping": self._ping,
            "status": self._status,
            "pin": self._pin,
            "unpin": self._unpin,
            "pins": self._pins,
            "hoard": self._hoard,
            **HoardApi(lambda: self.volume).handlers(),
            "sync": self._sync,
            "journal_list": self._journal_list,
            "journal_show": self._journal_show,
            "why": self._why,
            "cache": self._cache,
            "events": self._events,
            "unmount": self._unmount,
            **ModeApi(lambda: self.volume, lambda: self.orders).handlers(),
            **ConflictApi(lambda: self.volume).handlers(),
            **SessionApi(lambda: self.volume).handlers(),
            **ResolveApi(lambda: self.volume).handlers(),
            **SettingsApi(lambda: self.volume).handlers(),
        }

    # -- state ----------------------------------------------------------------------------

    async def _ping(self, _params: dict[str, Any]) -> dict[str, Any]:
        return {"pid": os.getpid()}

    def status(self) -> dict[str, Any]:
        """Where the volume stands, as ``awayfs status --json`` prints it."""
        volume = self.volume
        state, store = volume.link.state, volume.store
        progress = volume.replay.progress()
        return {
            "volume": self._request.volume,
            "url": self._request.url,
            "mountpoint": text_of(self._request.mountpoint),
            "pid": os.getpid(),
            "mode": str(state.mode),
            "by_hand": state.by_hand,
            "cause": state.cause,
            "since_ns": state.since_ns,
            **self.orders.shown(),
            "link": {
                "metered": volume.link.metered,
                "weak": volume.link.weak,
                "why": volume.link.why_weak,
                "up_bytes_s": volume.link.meter.bytes_s(Way.UP),
                "down_bytes_s": volume.link.meter.bytes_s(Way.DOWN),
                "round_trip_s": volume.link.round_trip_s,
            },
            "pending": {
                "records": progress.records - progress.parked,
                "bytes": progress.bytes,
                "parked": progress.parked,
                "held": progress.held,
                "resting": progress.resting.records,
                "resting_s": progress.resting.left_s,
            },
            "reintegrate": str(volume.context.sending.policy),
            "cache": {
                "bytes": store.content.usage(),
                "limit": volume.context.cache_limit,
                "nodes": store.nodes.count(),
            },
            "conflicts": store.conflicts.count(),
            "last_contact_ns": volume.link.last_contact_ns,
            "server": server_of(self._request.url),
            "replaying": volume.replay.active,
            "sending": _sending(volume.replay.estimate()),
            "event_socket": paths.event_socket_file(self._request.volume),
            "history": told(list(volume.link.history)[-SHOWN_MODES:]),
        }

    async def _status(self, params: dict[str, Any]) -> dict[str, Any]:
        answer = self.status()
        if "path" in params and params["path"] is not None:
            path = path_param(params)
            node = await self.volume.find(path)
            answer["path"] = self.volume.states.describe(node.id, text_of(path))
        return answer

    async def _cache(self, _params: dict[str, Any]) -> dict[str, Any]:
        return dict(self.status()["cache"])

    async def _why(self, params: dict[str, Any]) -> dict[str, Any]:
        path = path_param(params)
        state = self.volume.link.state
        answer: dict[str, Any] = {
            "path": text_of(path),
            "text": "nothing failed on it lately",
            "since_ns": None,
            "help": [],
            "mode": str(state.mode),
            "cause": state.cause,
            "mode_since_ns": state.since_ns,
        }
        try:
            node = await self.volume.find(path)
        except OSError as error:
            name = DISCONNECTED_NAME.get(error.errno or 0) or errno.errorcode.get(
                error.errno or 0, "?"
            )
            answer |= {"error": name, "code": error.errno, "text": error.strerror or str(error)}
            answer["help"] = HELP.get(name, [])
            return answer
        self._explain(node.id, answer)
        return answer

    def _explain(self, node: int, answer: dict[str, Any]) -> None:
        volume = self.volume
        failure = volume.context.failures.of(node)
        if failure is not None:
            name = DISCONNECTED_NAME.get(failure.code) or errno.errorcode.get(failure.code, "?")
            answer |= {
                "error": name,
                "code": failure.code,
                "text": failure.text,
                "since_ns": failure.at_ns,
                "help": HELP.get(name, []),
            }
            times = volume.learning.times_missed(node)
            if times:
                answer["help"] = [
                    f"it was missing {times} times while offline: pin it",
                    *HELP[name],
                ]
        state = volume.link.state
        if failure is None and volume.replay.holds_back(node):
            answer["text"] = HELD[volume.context.sending.policy]
            answer["help"] = ["awayfs sync PATH sends it now"]
        if state.mode is Mode.STOPPED:
            answer |= {"text": f"the volume is stopped: {state.cause}", "since_ns": state.since_ns}
        resting = volume.replay.ageing.resting()
        for record in volume.store.journal.of_node(node):
            if record.state is RecordState.PARKED:
                answer |= {"text": record.reason, "since_ns": record.at_ns}
            elif resting.records and record.seq >= resting.first and failure is None:
                answer |= {"text": RESTS, "since_ns": record.at_ns, "help": [SENDS_NOW]}
        for conflict in volume.store.conflicts.of_node(node):
            answer |= {"text": f"{conflict.kind}: {conflict.note}", "error": "ECONFLICTED"}
            answer["since_ns"] = conflict.detected_ns
            answer["help"] = HELP["ECONFLICTED"]

    async def _events(self, params: dict[str, Any]) -> AsyncIterator[dict[str, Any] | Done]:
        """The events that are kept, and with ``follow`` those to come, as lines."""
        log = self.volume.context.events
        reader, news = EventReader(log), asyncio.Event()
        log.on_event.append(news.set)
        try:
            while True:
                news.clear()
                while lines := reader.read(EVENTS_AT_A_TIME):
                    yield {"lines": lines.decode("ascii")}
                if not params.get("follow"):
                    break
                await news.wait()
        finally:
            log.on_event.remove(news.set)
        yield Done({})

    # -- working set ----------------------------------------------------------------------

    async def _pin(self, params: dict[str, Any]) -> AsyncIterator[dict[str, Any] | Done]:
        node, pins = await self.volume.find(path_param(params)), self.volume.store.pins
        before = pins.get(node.id)
        pins.add(node.id, int(params.get("priority") or 0), True)
        if not params.get("walk", True):
            yield Done({"files": 0, "bytes": 0, "failed": []})
            return
        try:
            async for event in self._walked(node.id):
                yield event
        except UsageError:  # it can never be true, and would only keep room from others
            pins.remove(node.id)
            if before is not None:
                pins.add(node.id, before.priority, before.recursive)
            raise

    async def _walked(self, node: int) -> AsyncIterator[dict[str, Any] | Done]:
        walk = Walk()
        async for walk in self.volume.hoard.walk(node):
            yield {
                "done": walk.done,
                "total": walk.total,
                "bytes": walk.bytes,
                "path": printable(walk.path),
            }
        yield Done({"files": walk.done, "bytes": walk.bytes, "failed": pairs_of(walk.failed)})

    async def _unpin(self, params: dict[str, Any]) -> dict[str, Any]:
        path = path_param(params)
        node = await self.volume.find(path)
        if not self.volume.unpin_node(node.id):
            raise ControlError(
                f"{text_of(path)}: is not pinned itself; see awayfs pins", "not-found"
            )
        return {"path": text_of(path)}

    async def _pins(self, _params: dict[str, Any]) -> dict[str, Any]:
        pins = []
        for pin in self.volume.store.pins.all():
            missing = (await self.volume.hoard.check(pin.node)).missing
            pins.append(
                {
                    "path": self.volume.hoard.path(pin.node),
                    "priority": pin.priority,
                    "complete": not missing,
                    "missing": len(missing),
                }
            )
        return {"pins": pins}

    async def _hoard(self, params: dict[str, Any]) -> AsyncIterator[dict[str, Any] | Done]:
        if params.get("path") is not None:
            starts = [(await self.volume.find(path_param(params))).id]
        else:
            starts = self.volume.hoard.pinned_places()
        files = size = 0
        failed: list[dict[str, str]] = []
        if not params.get("check"):
            for start in starts:
                try:
                    async for event in self._walked(start):
                        if isinstance(event, Done):
                            files += event.result["files"]
                            size += event.result["bytes"]
                            failed += event.result["failed"]
                        else:
                            yield event
                except UsageError as error:  # a pin that cannot be true keeps no other from it
                    failed += pairs_of([(self.volume.hoard.path(start), str(error))])
        checked = [await self.volume.hoard.check(start) for start in starts]
        missing = [pair for inventory in checked for pair in inventory.missing]
        if params.get("check"):
            files = sum(inventory.files for inventory in checked)
            size = sum(inventory.bytes for inventory in checked)
        yield Done({"files": files, "bytes": size, "missing": pairs_of(missing), "failed": failed})

    # -- journal --------------------------------------------------------------------------

    async def _sync(self, params: dict[str, Any]) -> AsyncIterator[dict[str, Any] | Done]:
        volume = self.volume
        if params.get("accept_deletions"):
            now = volume.context.now()
            volume.context.accept_deletions_until_ns = now + DELETIONS_ACCEPTED_NS
            volume.link.confirm()
        path = path_param(params) if params.get("path") else b""
        if not volume.link.usable and not volume.link.state.by_hand:
            await self._connect_to_send()
        if path and not params.get("accept_deletions"):
            steps = self._sync_subtree(path)
        else:
            steps = self._sync_all()
        left: dict[str, Any] = {}
        async for left in steps:
            if not params.get("wait") or left["over"] or not volume.link.usable:
                break
            yield {"pending": left["pending"], "bytes": left["bytes"]}
            await volume.replay.wait(SYNC_TICK_S)
        yield Done(
            {**left, "mode": str(volume.mode), "reintegrate": str(volume.context.sending.policy)}
        )

    async def _sync_all(self) -> AsyncIterator[dict[str, Any]]:
        """Have all of the journal sent; what is left of it, each time one looks."""
        volume = self.volume
        if volume.link.usable:
            await volume.retry_refused()
        volume.replay.hurry()
        while True:
            progress = volume.replay.progress()
            stuck = progress.stuck and not volume.merging.busy
            yield {
                "pending": progress.records - progress.parked - progress.mapped - progress.not_now,
                "parked": progress.parked,
                "mapped": progress.mapped,
                "held": progress.held,
                "bytes": progress.bytes,
                "conflicts": volume.store.conflicts.count(),
                "stuck": stuck,
                "full": progress.full,
                "over": progress.over or stuck,
            }

    async def _sync_subtree(self, path: bytes) -> AsyncIterator[dict[str, Any]]:
        """Have what concerns a subtree sent before all else; what is left of that."""
        volume, replay = self.volume, self.volume.replay
        if path.split(b"/")[0] == RESERVED:
            raise ControlError(
                "what is in .awayfs is never sent; give the path that it is about", "usage"
            )
        sending = volume.context.sending
        try:
            top = (await volume.find(path)).id
        except FileNotFoundError:
            why = "no such file or directory; what was removed goes with the directory it was in"
            raise ControlError(why, "not-found") from None
        asked = await sending.of_subtree(top)
        if volume.link.usable and volume.store.conflicts.count():
            await volume.retry_refused(asked)
            asked |= await sending.of_subtree(top)
        replay.hurry_first(asked)
        while True:
            left, progress = volume.store.journal.some(asked), replay.progress()
            parked = sum(record.state is RecordState.PARKED for record in left)
            stuck = bool(left) and volume.link.usable and replay.first_is_stuck
            stuck = stuck and not volume.merging.busy
            yield {
                "pending": len(left) - parked,
                "parked": parked,
                "mapped": 0,
                "held": progress.held,
                "bytes": progress.bytes,
                "conflicts": volume.store.conflicts.count() if left else 0,
                "stuck": stuck,
                "full": progress.full,
                "over": len(left) == parked or stuck,
            }

    async def _connect_to_send(self) -> None:
        """Raises what prevents it, unless there is nothing to send anyway."""
        try:
            await self.volume.link.connect()
        except RemoteError:
            if self.volume.store.journal.count():
                raise

    async def _journal_list(self, _params: dict[str, Any]) -> dict[str, Any]:
        records: list[dict[str, Any]] = []
        slices, last = Slices(), 0
        while batch := self.volume.store.journal.all(limit=JOURNAL_BATCH, after=last):
            records += [self._record(record) for record in batch]
            last = batch[-1].seq
            await slices.pause()
        return {"records": records}

    async def _journal_show(self, params: dict[str, Any]) -> dict[str, Any]:
        record = self.volume.store.journal.get(int(params["seq"]))
        if record is None:
            raise ControlError(f"record {params['seq']}: is not in the journal", "not-found")
        answer = self._record(record)
        attributes = record.attributes
        answer["attributes"] = {
            name: value
            for name in ("mode", "uid", "gid", "mtime_ns", "atime_ns")
            if (value := getattr(attributes, name)) is not None
        }
        if record.xattr_name:
            answer["xattr"] = text_of(record.xattr_name)
        intent = self.volume.store.intents.get(record.seq)
        answer["stage"] = intent[1] if intent else None
        base = self.volume.store.server.get(record.node)
        answer["base"] = entry_facts(base.entry()) if base else None
        return answer

    def _record(self, record: Record) -> dict[str, Any]:
        nodes = self.volume.store.nodes
        node = self.volume.context.node(record.node)
        path = self._joined(record.parent, record.name) if record.parent else None
        if path is None:
            path = nodes.path(record.node)
        to_path = self._joined(record.to_parent, record.to_name) if record.to_parent else None
        return {
            "seq": record.seq,
            "kind": str(record.kind),
            "state": str(record.state),
            "path": text_of(path) if path is not None else None,
            "to_path": text_of(to_path) if to_path is not None else None,
            "node": record.node,
            "at_ns": record.at_ns,
            "reason": record.reason,
            "size": node.size if node and record.kind is RecordKind.STORE else None,
        }

    def _joined(self, parent: int, name: bytes) -> bytes:
        directory = self.volume.store.nodes.path(parent)
        return directory + b"/" + name if directory else name

    # -- the end --------------------------------------------------------------------------

    async def _unmount(self, params: dict[str, Any]) -> dict[str, Any]:
        self.volume.store.insist(self.volume.context.opened.save_all)
        pending = self.volume.store.journal.count()
        mountpoint, lazy = self._request.mountpoint, bool(params.get("lazy"))
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(None, lambda: mounting.unmount(mountpoint, lazy=lazy))
        return {"pending": pending, "reintegrate": str(self.volume.context.sending.policy)}


def _sending(estimate: Estimate | None) -> dict[str, Any] | None:
    """Rates and the time left, while changes are sent and something is known of it."""
    if estimate is None:
        return None
    return {
        "records_per_s": round(estimate.records_per_s, 1),
        "bytes_per_s": round(estimate.bytes_per_s),
        "left_s": None if estimate.left_s is None else round(estimate.left_s, 1),
    }
