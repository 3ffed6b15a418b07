"""Archives that lie about themselves, taken apart."""

from __future__ import annotations

import base64
import os
import tarfile
from pathlib import Path
from typing import Any

import msgspec
import pytest

from awayfs.cli import archive
from awayfs.cli.ask import Failed
from awayfs.cli.unpack import unpack
from awayfs.control.client import MountInfo
from awayfs.control.manifest import BaseFacts, NodeFacts, RecordFacts
from awayfs.core.types import Kind

LONG = 64 << 20


@pytest.mark.parametrize(
    "kind",
    [
        tarfile.XHDTYPE,
        tarfile.XGLTYPE,
        tarfile.SOLARIS_XHDTYPE,
        tarfile.GNUTYPE_LONGNAME,
        tarfile.GNUTYPE_LONGLINK,
    ],
)
@pytest.mark.parametrize("size", [LONG, -512])
def test_headers_are_not_read_into_memory_whatever_their_length(
    kind: bytes, size: int, tmp_path: Path
) -> None:
    """A compressed one of a megabyte would be one of a gigabyte there."""
    header = tarfile.TarInfo("x")
    header.type, header.size = kind, size
    path = tmp_path / "a.tar"
    with path.open("wb") as file:
        file.write(header.tobuf(tarfile.GNU_FORMAT))
        file.truncate(LONG + 10240)
    with pytest.raises(Failed, match="a header is too long"):
        unpack(os.fsencode(path), str(tmp_path))


def test_long_names_are_read(tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    with tarfile.open(path, "w") as archive:
        archive.addfile(tarfile.TarInfo("files/" + "d/" * 1000 + "f"))
    with pytest.raises(Failed, match="does not begin with manifest"):
        unpack(os.fsencode(path), str(tmp_path))


def test_names_are_not_kept_whatever_they_come_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each of a sane length, of a million links, and compressed to nothing."""
    monkeypatch.setattr("awayfs.cli.unpack.NAMES_MAX", 5000)
    path = tmp_path / "a.tar"
    with tarfile.open(path, "w") as archive:
        for number in range(10):
            link = tarfile.TarInfo(f"files/{number}" + "x" * 1000)
            link.type, link.linkname = tarfile.SYMTYPE, "y" * 1000
            archive.addfile(link)
    with pytest.raises(Failed, match="names are too long"):
        unpack(os.fsencode(path), str(tmp_path))


@pytest.mark.parametrize("then", ["shorter", "another", "gone", "the same"])
def test_a_base_that_went_while_it_was_exported_spoils_no_archive(
    then: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is sent meanwhile is the base from then on, and the one that was told of is not here."""
    owned: dict[str, Any] = {"mode": 0o644, "uid": 0, "gid": 0, "mtime_ns": 0}
    base = BaseFacts(path=b"f", kind=int(Kind.FILE), size=9, token=b"old", weak=False, **owned)
    node = NodeFacts(
        id=7, kind=int(Kind.FILE), rdev=0, size=3, path=b"f", stored=True, ranges=[(0, 3)],
        base=base, **owned,
    )  # fmt: skip
    record = RecordFacts(seq=1, kind="store", node=7)
    before, after = b"it was so", b"it " if then == "shorter" else b"was sent."

    def request(
        _mount: object,
        method: str,
        params: dict[str, Any] | None = None,
        *,
        on_progress: Any = None,
    ) -> dict[str, Any]:
        if method == "session_read":
            assert params is not None
            data = before if then == "the same" else after
            if params["which"] == "local":
                data = b"new"
            elif then == "gone":
                raise Failed("f: its base is not here")
            start, stop = params["offset"], params["offset"] + params["length"]
            return {"data": base64.b64encode(data[start:stop]).decode(), "stamp": "1"}
        told = msgspec.to_builtins(node)
        if params:  # asked again
            told["base"]["token"] = msgspec.to_builtins(b"old" if then == "the same" else b"new")
            on_progress({"nodes": [told]})
            return {}
        on_progress({"nodes": [{**told, "base_here": True}]})
        on_progress({"records": [msgspec.to_builtins(record)]})
        return {"volume": {"url": "dir:/x"}, "host": "here", "made_ns": 0}

    monkeypatch.setattr(archive, "request", request)
    mount = MountInfo("v", "dir:/x", b"/mnt", 1, 0, "", running=True, mounted=True)
    done = archive.export(mount, os.fsencode(tmp_path / "work.tar"), [])
    assert (done.records, done.files) == (1, 1)
    place = tmp_path / "out"
    place.mkdir()
    unpack(os.fsencode(tmp_path / "work.tar"), str(place))
    assert (place / "local-7").read_bytes() == b"new"
    if then == "the same":
        assert (place / "base-7").read_bytes() == before
    else:
        assert not (place / "base-7").exists()


def test_what_grew_after_it_was_told_of_is_exported_as_a_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As much of it as there had been before is a content that nobody ever wrote."""
    node = NodeFacts(
        id=7, kind=int(Kind.FILE), mode=0o644, uid=0, gid=0, rdev=0, size=3, mtime_ns=0,
        path=b"f", stored=True, ranges=[(0, 3)],
    )  # fmt: skip
    content = b"another content"

    def request(
        _mount: object,
        method: str,
        params: dict[str, Any] | None = None,
        *,
        on_progress: Any = None,
    ) -> dict[str, Any]:
        if method == "session_read":
            assert params is not None
            start, stop = params["offset"], params["offset"] + params["length"]
            return {"data": base64.b64encode(content[start:stop]).decode(), "stamp": "5"}
        told = msgspec.to_builtins(node)
        if params:
            told |= {"size": len(content), "ranges": [(0, len(content))], "mtime_ns": 9}
        on_progress({"nodes": [told]})
        return {"volume": {"url": "dir:/x"}, "host": "here", "made_ns": 0}

    monkeypatch.setattr(archive, "request", request)
    mount = MountInfo("v", "dir:/x", b"/mnt", 1, 0, "", running=True, mounted=True)
    done = archive.export(mount, os.fsencode(tmp_path / "work.tar"), [])
    assert done.bytes == len(content)
    place = tmp_path / "out"
    place.mkdir()
    manifest = unpack(os.fsencode(tmp_path / "work.tar"), str(place))
    assert (place / "local-7").read_bytes() == content
    assert manifest.nodes[0].mtime_ns == 9
