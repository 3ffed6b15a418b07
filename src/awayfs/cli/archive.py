"""``journal export``: the session as an archive that a person can read, and a program, too.

    README.txt       what this is, and how to restore from it by hand
    changes.txt      what was changed, as ``awayfs diff --name-only`` prints it
    manifest.json    the records, and what they are based on (``control.manifest``)
    files/PATH       what was written here
    base/PATH        what it was before, where that is here

The content is collected first, so that the manifest, which says what is to be expected, comes
before it; and so that an archive is never half there under its name.
"""

from __future__ import annotations

import base64
import contextlib
import errno
import hashlib
import io
import os
import tarfile
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import IO, Any, Final

import msgspec

from awayfs.cli.ask import Failed, request
from awayfs.cli.progress import Bar
from awayfs.control.client import MountInfo
from awayfs.control.manifest import (
    BASE,
    FORMAT,
    LOCAL,
    NAME,
    README,
    BaseFacts,
    Manifest,
    NodeFacts,
    RecordFacts,
    VolumeFacts,
)
from awayfs.control.messages import text_of
from awayfs.core.types import Kind

CHANGES: Final = "changes.txt"
_CHUNK: Final = 1 << 20
_TRIES: Final = 5
_README: Final = """\
This is the work that was done on {host} in a mount of

    {url}

and had not been sent when this archive was written, {when}.

To bring it back with awayfs, mount that share (on any machine) and run

    awayfs journal import --dry-run FILE
    awayfs journal import FILE

To bring it back by hand:

    files/      every file that was written, under the path it had in the mount
    base/       the same files as they were before, where that was known
    changes.txt what was changed: A added, D removed, R renamed, T another type,
                M other content, P other properties (mode, owner, times)

Copy what you want from files/. Compare with base/ and with the share first: others may
have changed the same files since. What changes.txt calls removed (D) or renamed (R) is
not in files/; do that by hand. manifest.json is for programs.
"""


@dataclass
class _Collected:
    """What the daemon told; of a node, what it told last."""

    by_id: dict[int, NodeFacts] = field(default_factory=dict)
    with_base: set[int] = field(default_factory=set)
    records: list[RecordFacts] = field(default_factory=list)

    def __call__(self, event: dict[str, Any]) -> None:
        for facts in event.get("nodes", ()):
            node = msgspec.convert(facts, NodeFacts)
            self.by_id[node.id] = node
            (self.with_base.add if facts.get("base_here") else self.with_base.discard)(node.id)
        self.records += [msgspec.convert(facts, RecordFacts) for facts in event.get("records", ())]

    @property
    def nodes(self) -> list[NodeFacts]:
        return list(self.by_id.values())


@dataclass
class Exported:
    """What is in the archive. ``missing``: paths whose content is not whole here."""

    records: int
    files: int
    bytes: int
    missing: list[str]


def export(mount: MountInfo, target: bytes, changes: list[str]) -> Exported:
    """Write the archive; ``target`` must not exist, and is whole when it does."""
    mode = _mode(target)
    directory = os.path.dirname(target) or b"."
    with contextlib.ExitStack() as stack:
        place = stack.enter_context(
            tempfile.TemporaryDirectory(prefix=".awayfs-export-", dir=os.fsdecode(directory))
        )
        collected = _Collected()
        facts = request(mount, "journal_export", on_progress=collected)
        members = _collect_content(mount, collected, place)
        manifest = Manifest(
            format=FORMAT,
            volume=msgspec.convert(facts["volume"], VolumeFacts),
            host=str(facts["host"]),
            made_ns=int(facts["made_ns"]),
            nodes=collected.nodes,
            records=collected.records,
        )
        staged = os.path.join(os.fsencode(place), b"archive")
        _write(staged, mode, manifest, changes, members)
        _put(staged, target)
    missing = [text_of(n.path) for n in collected.nodes if n.path is not None and not _is_whole(n)]
    size = sum(node.size for node in collected.nodes if node.member)
    files = sum(1 for node in collected.nodes if node.member)
    return Exported(len(collected.records), files, size, missing)


def _is_whole(node: NodeFacts) -> bool:
    return not node.stored or node.ranges == ([(0, node.size)] if node.size else [])


def _mode(target: bytes) -> str:
    """How the archive is compressed, by its name."""
    for suffix, mode in ((b".tar", ""), (b".tar.gz", "gz"), (b".tgz", "gz"), (b".tar.zst", "zst")):
        if target.endswith(suffix):
            return mode
    raise Failed(f"{text_of(target)}: call it .tar, .tar.gz or .tar.zst")


def zstandard() -> Any:
    """The module, which is an extra (``pip install awayfs[zstd]``)."""
    try:
        import zstandard as module
    except ImportError:
        raise Failed(".tar.zst needs the Python package zstandard; use .tar.gz") from None
    return module


# -- collecting ---------------------------------------------------------------------------


def _collect_content(
    mount: MountInfo, collected: _Collected, place: str
) -> list[tuple[str, str, NodeFacts]]:
    """Read all content into files of ``place``; (member, file, node), and the facts follow."""
    members: list[tuple[str, str, NodeFacts]] = []
    wanted = [node for node in collected.nodes if node.kind == Kind.FILE]
    with Bar("exporting") as bar:
        for done, node in enumerate(wanted):
            bar({"done": done, "total": len(wanted)})
            if node.stored and node.path is not None:
                path = os.path.join(place, f"local-{node.id}")
                node.blake2b = _read_local(mount, node, path)
                if node.blake2b is not None:
                    node.member = _member(LOCAL, node.path, node.id)
                    members.append((node.member, path, node))
            if node.base is not None and node.id in collected.with_base:
                path = os.path.join(place, f"base-{node.id}")
                node.base.blake2b = _read_base(mount, node.id, node.base, path)
                if node.base.blake2b is not None:
                    node.base.member = _member(BASE, node.base.path, node.id)
                    members.append((node.base.member, path, node))
    return members


def _member(place: str, path: bytes, number: int) -> str:
    """What a content is called in the archive: as the manifest is JSON, text in any case."""
    try:
        return place + path.decode()
    except UnicodeDecodeError:
        return f"{place}{path.decode(errors='backslashreplace')}\\{number}"


def _read_local(mount: MountInfo, node: NodeFacts, path: str) -> str | None:
    """A file that is being written is read again until it stays as it is for so long.

    None for one that was removed meanwhile: it has no path any more, and no content.
    """
    for _ in range(_TRIES):
        known = node.size, node.ranges
        digest, steady = _read(mount, node.id, "local", node.ranges, path)
        fresh = _Collected()
        request(mount, "journal_export", {"node": node.id}, on_progress=fresh)
        for again in fresh.nodes:  # it may have grown before any of it was read
            if again.path is None:
                node.path, node.stored, node.ranges = None, False, []
                return None
            node.size, node.mtime_ns, node.ranges = again.size, again.mtime_ns, again.ranges
        if steady and known == (node.size, node.ranges):
            return digest
    raise Failed(f"{text_of(node.path or b'')}: is being written all the time; close it first")


def _read_base(mount: MountInfo, number: int, base: BaseFacts, path: str) -> str | None:
    """A base's content as a file; its digest, None where it went while it was read.

    What is sent meanwhile is the base from then on.
    """
    try:
        digest, _ = _read(mount, number, "base", [(0, base.size)] if base.size else [], path)
    except Failed:  # it is not here any more; if the daemon is not, either, the next request tells
        return None
    fresh = _Collected()
    request(mount, "journal_export", {"node": number}, on_progress=fresh)
    now = [again.base.token for again in fresh.nodes if again.base is not None]
    return digest if digest and now == [base.token] else None


def _read(
    mount: MountInfo, node: int, which: str, ranges: list[tuple[int, int]], path: str
) -> tuple[str, bool]:
    """Ranges of a content as a file; its digest, and whether it stayed the same meanwhile."""
    stamps: set[str] = set()
    size = ranges[-1][1] if ranges else 0
    with open(path, "w+b") as file:
        for start, end in ranges:
            file.seek(start)
            while start < end:
                length = min(_CHUNK, end - start)
                params = {"node": node, "which": which, "offset": start, "length": length}
                answer = request(mount, "session_read", params)
                data = base64.b64decode(answer["data"])
                stamps.add(answer["stamp"])
                if not data:
                    return "", False
                file.write(data)
                start += len(data)
        file.truncate(size)
        file.seek(0)
        digest = hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=32)).hexdigest()
    return digest, len(stamps) <= 1


# -- writing ------------------------------------------------------------------------------


def _write(
    path: bytes,
    mode: str,
    manifest: Manifest,
    changes: list[str],
    members: list[tuple[str, str, NodeFacts]],
) -> None:
    when = time.strftime("%Y-%m-%d %H:%M %Z", time.localtime(manifest.made_ns // 1_000_000_000))
    readme = _README.format(host=manifest.host, url=manifest.volume.url, when=when)
    with _opened(path, mode) as stream, tarfile.open(fileobj=stream, mode="w|") as archive:
        for name, text in (
            (README, readme.encode()),
            (CHANGES, "".join(line + "\n" for line in changes).encode("utf-8", "surrogateescape")),
            (NAME, msgspec.json.encode(manifest)),
        ):
            _add(archive, name, io.BytesIO(text), len(text), manifest.made_ns, 0o644)
        for node in manifest.nodes:
            if node.kind == Kind.SYMLINK and node.path is not None and node.target:
                _add_link(archive, node)
        for name, file, node in members:
            with open(file, "rb") as content:
                size = os.fstat(content.fileno()).st_size
                _add(archive, name, content, size, node.mtime_ns, node.mode & 0o777)


def _add(
    archive: tarfile.TarFile, name: str, content: IO[bytes], size: int, mtime_ns: int, mode: int
) -> None:
    info = tarfile.TarInfo(name)
    info.size, info.mtime, info.mode = size, mtime_ns // 1_000_000_000, mode
    archive.addfile(info, content)


def _add_link(archive: tarfile.TarFile, node: NodeFacts) -> None:
    info = tarfile.TarInfo(LOCAL + os.fsdecode(node.path or b""))
    info.type, info.linkname = tarfile.SYMTYPE, os.fsdecode(node.target or b"")
    info.mtime = node.mtime_ns // 1_000_000_000
    archive.addfile(info)


@contextlib.contextmanager
def _opened(path: bytes, mode: str) -> Iterator[IO[bytes]]:
    """The stream to write to; it is durable at the end."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with open(descriptor, "wb") as file:
        if mode == "gz":
            import gzip

            with gzip.GzipFile(filename="", mode="wb", fileobj=file) as stream:
                yield stream  # type: ignore[misc]
        elif mode == "zst":
            with (
                zstandard()
                .ZstdCompressor(write_checksum=True)
                .stream_writer(file, closefd=False) as stream
            ):
                yield stream
        else:
            yield file
        file.flush()
        os.fsync(file.fileno())


def _put(staged: bytes, target: bytes) -> None:
    """Give it its name, unless that is taken by now."""
    try:
        os.link(staged, target)
    except FileExistsError:
        raise Failed(f"{text_of(target)}: exists; choose another name") from None
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.EOPNOTSUPP, errno.EMLINK):
            raise
        os.rename(staged, target)  # a file system without links
    directory = os.open(os.path.dirname(target) or b".", os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
