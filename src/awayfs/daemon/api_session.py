"""What commands can ask about the session: its differences, discarding, export and import."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from typing import Any

import msgspec

from awayfs.control.manifest import NodeFacts, VolumeFacts
from awayfs.control.messages import ControlError, bytes_of, path_param, text_of
from awayfs.control.server import Done, Handler
from awayfs.core.records import Record, RecordKind
from awayfs.core.session import Aspect, Difference, aspect_of
from awayfs.core.types import NodeId
from awayfs.volume.discard import Discarder
from awayfs.volume.exporting import Exporter
from awayfs.volume.importing import Importer
from awayfs.volume.planning import Plan
from awayfs.volume.session import Change, Session, concerns
from awayfs.volume.slices import Slices
from awayfs.volume.volume import Volume

BATCH = 100
NAMED = 3
"""So many paths are named in a refusal."""

Events = AsyncIterator[dict[str, Any] | Done]


class SessionApi:
    """Answers for the session. ``volume`` gives the volume, once there is one."""

    def __init__(self, volume: Callable[[], Volume]) -> None:
        self._volume = volume

    def handlers(self) -> Mapping[str, Handler]:
        """Method → handler."""
        return {
            "diff": self._diff,
            "session_read": self._read,
            "discard": self._discard,
            "journal_drop": self._drop,
            "journal_export": self._export,
            "journal_import": self._import,
            "cull": self._cull,
        }

    @property
    def _session(self) -> Session:
        return Session(self._volume().context)

    def _discarder(self) -> Discarder:
        volume = self._volume()
        return Discarder(volume.context, volume.changes, volume.replay)

    async def _have_pages(self) -> None:
        """What programs wrote to the kernel's pages belongs to the session."""
        context = self._volume().context
        await context.pages.have(context.opened.all())

    # -- looking --------------------------------------------------------------------------

    async def _diff(self, params: dict[str, Any]) -> Events:
        path = path_param(params, default="") if params.get("path") else b""
        await self._have_pages()
        batch: list[dict[str, Any]] = []
        count = 0
        async for change in self._session.changes(path):
            batch.append(self._told(change))
            count += 1
            if len(batch) >= BATCH:
                yield {"changes": batch}
                batch = []
        if batch:
            yield {"changes": batch}
        if not count and not self._is_known(path):
            raise ControlError(f"{text_of(path)}: no such file, neither here nor before", "os")
        yield Done({"count": count})

    def _is_known(self, path: bytes) -> bool:
        store = self._volume().store
        if store.nodes.resolve(path) is not None:
            return True
        node: NodeId | None = 1
        for part in path.split(b"/"):
            node = store.server.child(node, part) if node is not None else None
        return node is not None

    def _told(self, change: Change) -> dict[str, Any]:
        node, base = change.node, change.base
        store = self._volume().store
        return {
            "letters": change.letters,
            "path": text_of(change.shown_path),
            "from_path": text_of(change.from_path) if "R" in change.letters else None,
            "kind": (node or base).kind.name.lower(),  # type: ignore[union-attr]
            "base_kind": base.kind.name.lower() if base else None,
            "node": node.id if node else None,
            "base_node": base.node if base else None,
            "size": node.size if node else None,
            "base_size": base.size if base else None,
            "target": _text(node.target) if node else None,
            "base_target": _text(base.target) if base else None,
            "attributes": {name: list(pair) for name, pair in change.attributes.items()},
            "xattrs": change.xattrs,
            "here": change.local_here,
            "base_here": change.base_here,
            "conflicted": bool(node and store.conflicts.of_node(node.id)),
        }

    async def _read(self, params: dict[str, Any]) -> dict[str, Any]:
        exporter = Exporter(self._volume().context)
        node, which = int(params["node"]), str(params.get("which"))
        if which not in ("base", "local"):
            raise ControlError(f"{which}: no such variant", "usage")
        stamp = exporter.stamp(node)
        offset, length = max(int(params["offset"]), 0), max(int(params["length"]), 0)
        data = await exporter.read(node, which, offset, length)
        return {"data": base64.b64encode(data).decode("ascii"), "stamp": stamp}

    # -- going back -----------------------------------------------------------------------

    async def _discard(self, params: dict[str, Any]) -> Events:
        discarder = self._discarder()
        await self._have_pages()
        paths = None if params.get("all") else [path_param({"path": p}) for p in params["paths"]]
        wanted, shown = await self._scope(paths)
        plan = await discarder.planner.plan(wanted)
        self._refuse_losing(plan)
        for start in range(0, len(shown), BATCH):
            yield {"changes": shown[start : start + BATCH]}
        also = sorted(p for n in plan.also if (p := self._volume().store.server.path(n)))
        facts: dict[str, Any] = {
            "records": await self._count_records(plan),
            "paths": len(shown),
            "also": [text_of(p) for p in also],
        }
        if not params.get("dry_run"):
            done, total = 0, len(plan.nodes)
            async for group in discarder.discard(plan):
                done += len(group)
                if done % BATCH < len(group):
                    yield {"done": done, "total": total}
            facts["pending"] = self._volume().store.journal.count()
        yield Done(facts)

    async def _count_records(self, plan: Plan) -> int:
        journal, slices = self._volume().store.journal, Slices()
        seqs: set[int] = set()
        for node in plan.nodes:
            seqs.update(record.seq for record in journal.of_node(node))
            await slices.pause()
        return len(seqs)

    async def _scope(self, paths: list[bytes] | None) -> tuple[set[NodeId], list[dict[str, Any]]]:
        """The nodes that were touched at and below paths (None: all), and what differs there."""
        session, slices = self._session, Slices()
        found = await session.differences()
        nodes = set(self._volume().store.journal.nodes()) if paths is None else set()
        if paths is not None:
            for path in paths:
                self._must_concern(path, found)
            named = [d for d in found if any(concerns(d, path) for path in paths)]
            self._refuse_other_names(named, set(found).difference(named))
            found = named
        changes: list[dict[str, Any]] = []
        for difference in found:
            nodes |= {n for n in (difference.node, difference.base_node) if n is not None}
            change = session.change(difference)
            changes += [self._told(change)] if change is not None else []
            await slices.pause()
        return nodes, changes

    def _must_concern(self, path: bytes, found: list[Difference]) -> None:
        if any(concerns(difference, path) for difference in found):
            return
        known = self._is_known(path)
        why = "nothing was changed here" if known else "no such file, neither here nor before"
        raise ControlError(f"{text_of(path) or 'the volume'}: {why}", "not-found")

    def _refuse_other_names(self, named: list[Difference], others: Iterable[Difference]) -> None:
        """A file goes back as a whole: under all of its names, if they were named."""
        session, nodes = self._session, {d.node for d in named if d.node is not None}
        found = [d for d in others if d.node in nodes and d.local is not None]
        self._refuse([d.path for d in found if session.change(d) is not None])

    def _refuse_losing(self, plan: Plan) -> None:
        """What nobody named is not thrown away."""
        nodes = self._volume().store.nodes
        self._refuse([p for n in plan.losing if (p := nodes.path(n)) is not None])

    def _refuse(self, others: Iterable[bytes]) -> None:
        paths = sorted({text_of(path) for path in others})
        if not paths:
            return
        more = f" and {len(paths) - NAMED} more" if len(paths) > NAMED else ""
        named = ", ".join(paths[:NAMED]) + more
        raise ControlError(
            f"{named}: would have to be discarded as well; name it too, or move it away", "depends"
        )

    async def _drop(self, params: dict[str, Any]) -> dict[str, Any]:
        await self._have_pages()
        store = self._volume().store
        record = store.journal.get(int(params["seq"]))
        if record is None:
            raise ControlError(f"record {params['seq']}: is not in the journal", "not-found")
        discarder = self._discarder()
        whole = not store.server.names(record.node) and record.node != 1
        if whole or aspect_of(record.kind) is Aspect.NAMES:
            wanted = {record.node, record.replaced} - {0}
            plan = await discarder.planner.plan(wanted)
            seqs = plan.seqs
        else:
            plan = Plan(seqs=self._with(record))
            seqs = plan.seqs
        paths = sorted({p for seq in seqs if (p := self._path_of(seq)) is not None})
        if not params.get("dry_run"):
            if len(seqs) > 1 and not params.get("others"):
                raise ControlError(
                    f"record {record.seq}: {len(seqs) - 1} more would go with it; see what, with"
                    " --dry-run, and give them up too, with --with-others",
                    "depends",
                )
            if plan.groups:
                async for _ in discarder.discard(plan, Aspect.NAMES):
                    pass
            else:
                await discarder.drop(record)
        return {"seqs": sorted(seqs), "paths": [text_of(p) for p in paths]}

    def _with(self, record: Record) -> set[int]:
        if record.kind is not RecordKind.STORE:
            return {record.seq}
        records = self._volume().store.journal.of_node(record.node)
        return {r.seq for r in records if r.kind is RecordKind.STORE and r.node == record.node}

    def _path_of(self, seq: int) -> bytes | None:
        store = self._volume().store
        record = store.journal.get(seq)
        if record is None:
            return None
        return store.nodes.path(record.node) or store.server.path(record.node)

    # -- export and import ----------------------------------------------------------------

    async def _export(self, params: dict[str, Any]) -> Events:
        await self._have_pages()
        volume = self._volume()
        exporter = Exporter(volume.context)
        nodes: list[Any] = []
        records: list[Any] = []
        if params.get("node") is not None:  # one that changed while it was read
            again = exporter.node(int(params["node"]), stored=True)
            yield {"nodes": [msgspec.to_builtins(again)]}
            yield Done()
            return
        async for fact in exporter.facts():
            shown = msgspec.to_builtins(fact)
            if isinstance(fact, NodeFacts):
                nodes.append({**shown, "base_here": exporter.base_is_here(fact.id)})
            else:
                records.append(shown)
            if len(nodes) + len(records) >= BATCH:
                yield {"nodes": nodes, "records": records}
                nodes, records = [], []
        yield {"nodes": nodes, "records": records}
        facts = volume.store.facts
        options = volume.context.options
        known = VolumeFacts(
            url=facts.get("volume.url") or "",
            identity=facts.get("volume.identity"),
            uid=options.uid,
            gid=options.gid,
        )
        yield Done(
            {
                "volume": msgspec.to_builtins(known),
                "host": options.host,
                "made_ns": volume.context.now(),
            }
        )

    async def _import(self, params: dict[str, Any]) -> Events:
        directory = params.get("directory")
        if not isinstance(directory, str) or not directory.startswith("/"):
            raise ControlError("directory: an absolute path is needed", "usage")
        await self._have_pages()
        dry_run = bool(params.get("dry_run"))
        importer = Importer(self._volume(), bytes_of(directory), rehearsed=dry_run)
        await importer.load(force=bool(params.get("force")))
        async for done in importer.apply():
            yield {"done": done, "total": importer.total}
        yield Done(importer.report())

    # -- the cache ------------------------------------------------------------------------

    async def _cull(self, _params: dict[str, Any]) -> dict[str, Any]:
        volume = self._volume()
        files, size = await volume.culling.empty()
        return {
            "evicted_files": files,
            "evicted_bytes": size,
            "bytes": volume.store.content.usage(),
        }


def _text(name: bytes | None) -> str | None:
    return None if name is None else text_of(name)
