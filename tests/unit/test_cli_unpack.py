"""Archives that lie about themselves, taken apart."""

from __future__ import annotations

import os
import tarfile
from pathlib import Path

import pytest

from awayfs.cli.ask import Failed
from awayfs.cli.unpack import unpack

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
