"""The server: a directory, what others do in it, and how it looks."""

from __future__ import annotations

import os
import shutil
import stat
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from awayfs.remotes import linux
from awayfs.remotes.directory_facts import Version
from tests.model.ledger import Ledger, tokens_in

KEEP = "keep"
"""A file that nobody touches, so that the root is never empty: that would be a brake."""
Tree = dict[str, tuple[Any, ...]]


@dataclass
class Share:
    """The directory ``root``; ``act`` is somebody at work on the server itself."""

    root: Path
    ledger: Ledger
    versions: dict[bytes, frozenset[bytes]] = field(default_factory=dict)
    """Tokens by version token: what a client knows of that has only seen a listing."""

    def __post_init__(self) -> None:
        self.root.mkdir()
        (self.root / KEEP).write_bytes(b"")

    def note_versions(self) -> None:
        """Remember what each file's revision of this moment holds."""
        for path in self.files():
            s = path.lstat()
            token = Version(s.st_ino, s.st_ctime_ns, s.st_mtime_ns, s.st_size).token()
            if token not in self.versions:
                self.versions[token] = tokens_in(path.read_bytes())

    def files(self, below: str = "") -> list[Path]:
        """All regular files."""
        start = self.root / below
        if start.is_file() and not start.is_symlink():
            return [start]
        walked = os.walk(start)
        found = [Path(at, name) for at, _, names in walked for name in names]
        return [path for path in found if stat.S_ISREG(path.lstat().st_mode)]

    def tokens(self, below: str = "") -> set[bytes]:
        """All tokens in a file or directory."""
        return {t for path in self.files(below) for t in tokens_in(path.read_bytes())}

    def tree(self) -> Tree:
        """Names, kinds, modes, content, and which names are one file."""
        found: Tree = {}
        names: dict[int, list[str]] = {}
        for at, directories, files in os.walk(self.root):
            for name in directories + files:
                path = Path(at, name)
                shown = str(path.relative_to(self.root))
                status = path.lstat()
                if stat.S_ISLNK(status.st_mode):
                    found[shown] = ("link", str(path.readlink()))
                elif stat.S_ISDIR(status.st_mode):
                    found[shown] = ("dir", oct(status.st_mode & 0o7777))
                else:
                    names.setdefault(status.st_ino, []).append(shown)
                    found[shown] = ("file", oct(status.st_mode & 0o7777), path.read_bytes())
        for group in names.values():
            for name in group:
                found[name] += (tuple(sorted(set(group) - {name})),)
        return found

    def stamps(self) -> dict[str, tuple[int, ...]]:
        """What no second synchronisation may change."""
        found = {}
        for at, directories, files in os.walk(self.root):
            for path in [at, *(os.path.join(at, name) for name in directories + files)]:
                s = os.lstat(path)
                found[path] = (s.st_ino, s.st_mode, s.st_size, s.st_mtime_ns, s.st_ctime_ns)
        return found

    # -- somebody at work there -----------------------------------------------------------

    def act(self, op: tuple[Any, ...]) -> None:
        """One operation; ``OSError`` where it makes no sense just then."""
        getattr(self, f"_{op[0]}")(*op[1:])
        self.note_versions()

    def _at(self, path: str) -> Path:
        return self.root / path

    def _lose(self, path: str, what: str) -> None:
        self.ledger.give_up(self.tokens(path), f"s: {what} {path}")

    def _write(self, path: str, how: str) -> None:
        place, token = self._at(path), self.ledger.new("s")
        if place.is_symlink():
            raise OSError("not followed")
        if how == "create":
            with open(place, "xb") as file:
                file.write(token)
        else:
            if not place.is_file():
                raise OSError("no file")
            before = tokens_in(place.read_bytes())
            _edit_in_place(place, token, how)
            self.ledger.give_up(before - tokens_in(place.read_bytes()), f"s: write {path}")
        if how != "truncate":
            self.ledger.wrote(token)

    def _save(self, path: str, how: str) -> None:
        place, token = self._at(path), self.ledger.new("s")
        if place.is_symlink() or not place.is_file():
            raise OSError("no file")
        old = place.read_bytes()
        mode = stat.S_IMODE(place.stat().st_mode)
        if how == "backup":
            self._rename(path, f"{path}~")
        aside = Path(f"{place}.tmp") if how != "backup" else place
        if aside.is_file():
            self.ledger.give_up(self.tokens(f"{path}.tmp"), f"s: overwrite {path}.tmp")
        aside.write_bytes(old + token)
        aside.chmod(mode)
        if how != "backup":
            os.rename(aside, place)
        self.ledger.wrote(token)

    def _mkdir(self, path: str) -> None:
        self._at(path).mkdir()

    def _unlink(self, path: str) -> None:
        tokens = self.tokens(path) if self._at(path).is_file() else set()
        self._at(path).unlink()
        self.ledger.give_up(tokens, f"s: unlink {path}")

    def _rmdir(self, path: str) -> None:
        self._at(path).rmdir()

    def _remove(self, path: str) -> None:
        if self._at(path).is_symlink() or not self._at(path).is_dir():
            raise OSError("no directory")
        self._lose(path, "rm -r")
        shutil.rmtree(self._at(path))

    def _retype(self, path: str) -> None:
        """A file becomes a directory, and a directory a file."""
        place = self._at(path)
        if place.is_symlink() or not place.exists():
            raise OSError("nothing there")
        if place.is_dir():
            self._remove(path)
            self._write(path, "create")
        else:
            self._unlink(path)
            place.mkdir()

    def _rename(self, path: str, to: str) -> None:
        source, target = self._at(path), self._at(to)
        gone: set[bytes] = set()
        if target.is_file() and not target.is_symlink():
            gone = self.tokens(to)
            if os.path.samestat(source.lstat(), target.lstat()):
                gone = set()
        os.rename(source, target)
        self.ledger.give_up(gone, f"s: rename over {to}")

    def _exchange(self, path: str, to: str) -> None:
        fd = os.open(self.root, os.O_RDONLY | os.O_DIRECTORY)
        try:
            linux.renameat2(fd, path.encode(), fd, to.encode(), linux.RENAME_EXCHANGE)
        finally:
            os.close(fd)

    def _link(self, path: str, to: str) -> None:
        os.link(self._at(path), self._at(to), follow_symlinks=False)

    def _symlink(self, path: str, target: str) -> None:
        os.symlink(target, self._at(path))

    def _chmod(self, path: str, mode: int) -> None:
        place = self._at(path)
        if place.is_symlink():
            raise OSError("not followed")
        place.chmod(mode | (0o100 if place.is_dir() else 0))

    def _utime(self, path: str) -> None:
        os.utime(self._at(path), ns=(10**18, 10**18), follow_symlinks=False)

    def _xattr(self, path: str, value: str) -> None:
        os.setxattr(self._at(path), "user.model", value.encode(), follow_symlinks=False)


def _edit_in_place(place: Path, token: bytes, how: str) -> None:
    if how == "append":
        with open(place, "ab") as file:
            file.write(token)
    elif how == "middle":
        with open(place, "r+b") as file:
            file.write(token)
    elif how == "truncate":
        os.truncate(place, place.stat().st_size // 2 // len(token) * len(token))
    else:
        place.write_bytes(token)
