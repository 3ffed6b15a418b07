"""``journal import``: an archive from anywhere, taken apart without believing it.

Nothing is ever extracted under a name that the archive gives: the content of a regular file that
the manifest speaks of goes into a numbered file of a directory of ours, and only as many bytes as
the manifest says. The daemon checks the manifest again before it makes changes of it.
"""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import os
import shutil
import tarfile
import zlib
from collections.abc import Iterator
from typing import IO, Any, Final

from awayfs.cli.archive import CHANGES, zstandard
from awayfs.cli.ask import Failed
from awayfs.control.manifest import NAME, README, SIZE_MAX, Manifest, read
from awayfs.control.messages import text_of
from awayfs.core.errors import UsageError

MEMBERS_MAX: Final = 2_000_000
NAMES_MAX: Final = 256 << 20
"""Bytes of all names, which are kept in memory."""
_SPARE: Final = 64 << 20
"""So much of the disk is left to others."""
_CHUNK: Final = 1 << 20
_HEADER_MAX: Final = 1 << 20
_HEADERS: Final = (
    tarfile.XHDTYPE,
    tarfile.XGLTYPE,
    tarfile.SOLARIS_XHDTYPE,
    tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
)
_GZIP: Final = b"\x1f\x8b"
_ZSTD: Final = b"\x28\xb5\x2f\xfd"


def unpack(archive: bytes, place: str) -> Manifest:
    """Take an archive apart into ``place``; ``Failed`` for one that is not ours, or damaged."""
    name = text_of(archive)
    try:
        with (
            _opened(archive) as stream,
            tarfile.open(fileobj=stream, mode="r|", tarinfo=_Member) as members,
        ):
            return _Unpacking(members, place).run()
    except UsageError as error:
        raise Failed(f"{name}: {error}") from None
    except (tarfile.TarError, EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise Failed(f"{name}: is damaged or no archive: {error or 'it ends too early'}") from None
    except OSError as error:
        raise Failed(f"{name}: {error.strerror or error}") from None
    except Exception as error:
        if type(error).__name__ != "ZstdError":
            raise
        raise Failed(f"{name}: is damaged or no archive: {error}") from None


@contextlib.contextmanager
def _opened(archive: bytes) -> Iterator[IO[bytes]]:
    """The tar stream in a file, whatever it is compressed with; its content tells."""
    with open(archive, "rb") as file:
        magic = file.read(4)
        file.seek(0)
        if magic.startswith(_GZIP):
            with gzip.GzipFile(fileobj=file) as stream:
                yield stream  # type: ignore[misc]
        elif magic == _ZSTD:
            with zstandard().ZstdDecompressor().stream_reader(file) as stream:
                yield stream
        else:
            yield file


class _Member(tarfile.TarInfo):
    """A member whose name and properties, which are read into memory, are of a sane length."""

    def _proc_member(self, archive: tarfile.TarFile) -> tarfile.TarInfo:
        if self.type in _HEADERS and not 0 <= self.size <= _HEADER_MAX:
            raise tarfile.ReadError("a header is too long")
        return super()._proc_member(archive)  # type: ignore[misc, no-any-return]


class _Unpacking:
    """One archive, member by member."""

    def __init__(self, archive: tarfile.TarFile, place: str) -> None:
        self._archive = archive
        self._place = place
        self._manifest: Manifest | None = None
        self._wanted: dict[str, tuple[str, int, str | None]] = {}
        self._links: set[str] = set()
        self._named = 0

    def run(self) -> Manifest:
        """All of it; what the manifest promises must be there."""
        for number, member in enumerate(self._archive):
            self._named += len(member.name) + len(member.linkname)
            _need(number < MEMBERS_MAX, "it has too many members")
            _need(self._named <= NAMES_MAX, "its names are too long")
            self._take(member)
        if self._manifest is None:
            raise UsageError(f"it has no {NAME}")
        if self._wanted:
            missing = next(iter(self._wanted))
            raise UsageError(f"it ends too early: {missing} is missing")
        return self._manifest

    def _take(self, member: tarfile.TarInfo) -> None:
        self._check(member)
        if member.issym():
            self._links.add(member.name)
        elif member.name == NAME:
            self._take_manifest(member)
        elif member.isreg() and member.name not in (README, CHANGES):
            self._take_content(member)

    def _check(self, member: tarfile.TarInfo) -> None:
        """What an export never writes is refused, used or not."""
        name = member.name
        _need(bool(name) and not name.startswith("/"), f"{name!r} is an absolute path")
        parts = name.split("/")
        _need(".." not in parts and "\0" not in name, f"{name!r} leads out of it")
        plain = member.isreg() or member.issym() or member.isdir()
        _need(plain, f"{name!r} is a link, a device, or something else that does not belong")
        above = ("/".join(parts[:depth]) for depth in range(1, len(parts)))
        _need(not self._links.intersection(above), f"{name!r} is behind a link")

    def _take_manifest(self, member: tarfile.TarInfo) -> None:
        _need(self._manifest is None, f"it has two of {NAME}")
        _need(member.isreg() and member.size <= SIZE_MAX, f"its {NAME} is too large")
        content = self._archive.extractfile(member)
        data = content.read() if content is not None else b""
        _need(len(data) == member.size, "it ends too early")
        self._manifest = read(data)
        with open(os.path.join(self._place, NAME), "xb") as file:
            file.write(data)
        total = 0
        for node in self._manifest.nodes:
            if node.member is not None:
                size = node.ranges[-1][1] if node.ranges else 0
                self._want(node.member, f"local-{node.id}", size, node.blake2b)
                total += size
            if node.base is not None and node.base.member is not None:
                self._want(node.base.member, f"base-{node.id}", node.base.size, node.base.blake2b)
                total += node.base.size
        free = shutil.disk_usage(self._place).free
        _need(total + _SPARE <= free, f"it holds {total} bytes, and there is no room for them")

    def _want(self, member: str, file: str, size: int, digest: str | None) -> None:
        _need(member not in self._wanted, f"{member} belongs to two files")
        self._wanted[member] = (file, size, digest)

    def _take_content(self, member: tarfile.TarInfo) -> None:
        _need(self._manifest is not None, f"it does not begin with {NAME}")
        wanted = self._wanted.pop(member.name, None)
        if wanted is None:
            raise UsageError(f"its {NAME} does not know {member.name}")
        file, size, digest = wanted
        _need(member.size == size, f"{member.name} has {member.size} bytes, not {size}")
        content = self._archive.extractfile(member)
        assert content is not None
        found = self._copy(content, file, size)
        _need(digest is None or found == digest, f"{member.name} is damaged")

    def _copy(self, content: IO[bytes], file: str, size: int) -> str:
        hashed = hashlib.blake2b(digest_size=32)
        left = size
        with open(os.path.join(self._place, file), "xb") as target:
            while left:
                data = content.read(min(_CHUNK, left))
                _need(bool(data), "it ends too early")
                hashed.update(data)
                target.write(data)
                left -= len(data)
        return hashed.hexdigest()


def _need(condition: bool, why: str) -> None:
    if not condition:
        raise UsageError(why)


def shown_report(answer: dict[str, Any]) -> Iterator[str]:
    """What an import came to, in lines."""
    for path in answer.get("moved_on", ()):
        yield f"{path}: the server has another version by now; it will be a conflict"
    for skipped in answer.get("skipped", ()):
        yield f"{skipped['path']}: left out, {skipped['why']}"
