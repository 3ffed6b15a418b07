"""A program that changes a mount at random and keeps a mirror of what was acknowledged.

``crash_worker.py MOUNT MIRROR SEED`` reads one command a line and answers one JSON
object a line:

    go MAX      do at most MAX operations; ``{"done": N}``, or with ``"down"`` the operation that
                was in flight when the mount went away
    apply       do the operation in flight on the mirror after all (the mount shows that it came
                through)
    back        the mount is back; descriptors of the old one are dropped

An operation is one system call that changes something, so that the one in flight has either
happened or not. It is done on the mount, and once that has answered on the mirror, which is on
a local file system and so the model of what must be there. The mirror's times are those that
the mount showed. A write in flight may have come through in part, as with any file system.
"""

from __future__ import annotations

import errno
import json
import os
import random
import stat
import sys
from collections import deque
from dataclasses import dataclass, field
from typing import Any, TextIO

DOWN = (errno.ENOTCONN, errno.ECONNABORTED, errno.ENODEV)
MOST_FILES = 18
MOST_DIRECTORIES = 5
SLOTS = 4

Operation = dict[str, Any]


@dataclass
class Side:
    """One of the two trees, with the files that are kept open in it."""

    root: str
    slots: dict[int, int] = field(default_factory=dict)

    def at(self, path: str) -> str:
        return os.path.join(self.root, path)

    def drop(self) -> None:
        """Close what is open; on a dead mount that may fail."""
        for fd in self.slots.values():
            try:
                os.close(fd)
            except OSError:
                pass
        self.slots.clear()


def content(operation: Operation) -> bytes:
    """The bytes that a write writes: unlike those of any other."""
    return random.Random(operation["data"]).randbytes(operation["size"])


def perform(side: Side, op: Operation) -> None:
    """One operation on one side."""
    kind, path = op["op"], side.at(op.get("path", ""))
    if kind == "create":
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, op["mode"]))
        return
    if kind in ("write", "append", "cut", "allocate"):
        flags = os.O_RDWR | (os.O_APPEND if kind == "append" else 0)
        fd = os.open(path, flags | (os.O_TRUNC if kind == "cut" else 0))
        try:
            if kind == "write":
                _write_all(fd, content(op), op["offset"])
            elif kind == "append":
                _write_all(fd, content(op))
            elif kind == "allocate":
                os.posix_fallocate(fd, op["offset"], op["size"])
        finally:
            os.close(fd)
        return
    SIMPLE[kind](side, op, path)


def _open_slot(side: Side, op: Operation, path: str) -> None:
    flags = os.O_RDWR | (os.O_APPEND if op["append"] else 0)
    side.slots[op["slot"]] = os.open(path, flags)


def _write_all(fd: int, data: bytes, offset: int | None = None) -> None:
    """The kernel sends a write in parts; when the daemon dies between, write(2) tells of the first.

    What it does not tell of was not acknowledged, so the rest is asked for, and fails.
    """
    while data:
        if offset is None:
            done = os.write(fd, data)
        else:
            done = os.pwrite(fd, data, offset)
            offset += done
        data = data[done:]


def _write_slot(side: Side, op: Operation, _path: str) -> None:
    fd = side.slots[op["slot"]]
    _write_all(fd, content(op), None if op["append"] else op["offset"])


def _sync(side: Side, _op: Operation, path: str) -> None:
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


SIMPLE = {
    "truncate": lambda side, op, path: os.truncate(path, op["size"]),
    "rename": lambda side, op, path: os.rename(path, side.at(op["to"])),
    "unlink": lambda side, op, path: os.unlink(path),
    "mkdir": lambda side, op, path: os.mkdir(path, op["mode"]),
    "rmdir": lambda side, op, path: os.rmdir(path),
    "chmod": lambda side, op, path: os.chmod(path, op["mode"]),
    "utimes": lambda side, op, path: os.utime(path, ns=(op["time"], op["time"])),
    "symlink": lambda side, op, path: os.symlink(op["target"], path),
    "link": lambda side, op, path: os.link(path, side.at(op["to"])),
    "fsync": _sync,
    "open": _open_slot,
    "write-open": _write_slot,
    "truncate-open": lambda side, op, path: os.ftruncate(side.slots[op["slot"]], op["size"]),
    "fsync-open": lambda side, op, path: os.fsync(side.slots[op["slot"]]),
    "close": lambda side, op, path: os.close(side.slots.pop(op["slot"])),
}
TOUCHING = {"create", "write", "append", "cut", "allocate", "truncate", "utimes"}
TOUCHING_OPEN = {"write-open", "truncate-open"}


class Chooser:
    """Picks operations that must succeed, from what the mirror holds."""

    def __init__(self, mirror: Side, rng: random.Random) -> None:
        self._mirror = mirror
        self._rng = rng
        self._planned: deque[Operation] = deque()
        self._serial = 0
        self._appending: dict[int, bool] = {}

    def forget(self) -> None:
        """What was planned as a sequence is not gone on with."""
        self._planned.clear()

    def next(self) -> Operation:
        """The next operation."""
        while True:
            if self._planned:
                op = self._planned.popleft()
                if self._still_possible(op):
                    return op
                self._planned.clear()
            self._look()
            found = self._rng.choice(self._choices())()
            if found is not None:
                return dict(found)

    def _look(self) -> None:
        self.files: list[str] = []
        self.directories: list[str] = [""]
        self.links: list[str] = []
        for directory, names, files in os.walk(self._mirror.root):
            for name in sorted([*names, *files]):
                path = os.path.join(directory, name)
                shown = os.path.relpath(path, self._mirror.root)
                mode = os.lstat(path).st_mode
                kind = self.links if stat.S_ISLNK(mode) else self.files
                (self.directories if stat.S_ISDIR(mode) else kind).append(shown)

    def _choices(self) -> list[Any]:
        full = len(self.files) + len(self.links) > MOST_FILES
        growing = [] if full else [self._create, self._create, self._symlink, self._link]
        shrinking = [self._unlink] * (4 if full else 1) + [self._rmdir]
        changing = [self._write, self._append, self._truncate, self._cut, self._allocate]
        moving = [self._rename, self._rename, self._rename_over, self._rename_directory]
        other = [self._chmod, self._utimes, self._fsync, self._mkdir, self._save, self._save_aside]
        held = [self._open, self._write_open, self._write_open, self._write_open]
        held += [self._truncate_open, self._close, self._fsync_open]
        return [*growing, *shrinking, *changing, *changing, *moving, *other, *held]

    def _name(self) -> str:
        self._serial += 1
        return os.path.join(self._rng.choice(self.directories), f"n{self._serial}")

    def _data(self) -> Operation:
        self._serial += 1
        size = self._rng.choice((1, 100, 4096, 5000, 20000))
        return {"data": self._rng.getrandbits(40), "size": self._rng.randint(1, size)}

    def _file(self) -> str | None:
        return self._rng.choice(self.files) if self.files else None

    def _on_file(self, op: str, **more: Any) -> Operation | None:
        path = self._file()
        return None if path is None else {"op": op, "path": path, **more}

    def _size(self, path: str) -> int:
        return os.path.getsize(self._mirror.at(path))

    def _create(self) -> Operation:
        path = self._name()
        if self._rng.random() < 0.7:
            self._planned.append({"op": "write", "path": path, "offset": 0, **self._data()})
        return {"op": "create", "path": path, "mode": self._rng.choice((0o644, 0o600, 0o755))}

    def _write(self) -> Operation | None:
        path = self._file()
        if path is None:
            return None
        offset = self._rng.randint(0, self._size(path) + 500)
        return {"op": "write", "path": path, "offset": offset, **self._data()}

    def _append(self) -> Operation | None:
        return self._on_file("append", **self._data())

    def _cut(self) -> Operation | None:
        op = self._on_file("cut")
        if op is not None:
            self._planned.append({**op, "op": "write", "offset": 0, **self._data()})
        return op

    def _allocate(self) -> Operation | None:
        path = self._file()
        if path is None:
            return None
        return {"op": "allocate", "path": path, "offset": self._size(path) // 2, "size": 3000}

    def _truncate(self) -> Operation | None:
        path = self._file()
        if path is None:
            return None
        size = self._rng.choice((0, self._size(path) // 2, self._size(path) + 700))
        return {"op": "truncate", "path": path, "size": size}

    def _unlink(self) -> Operation | None:
        there = self.files + self.links
        return {"op": "unlink", "path": self._rng.choice(there)} if there else None

    def _rename(self) -> Operation | None:
        there = self.files + self.links
        if not there:
            return None
        return {"op": "rename", "path": self._rng.choice(there), "to": self._name()}

    def _rename_over(self) -> Operation | None:
        there = self.files + self.links
        if len(there) < 2:
            return None
        source, target = self._rng.sample(there, 2)
        return {"op": "rename", "path": source, "to": target}

    def _rename_directory(self) -> Operation | None:
        source = self._rng.choice(self.directories)
        target = self._name()
        if not source or target.startswith(source + "/"):
            return None
        return {"op": "rename", "path": source, "to": target}

    def _mkdir(self) -> Operation | None:
        if len(self.directories) > MOST_DIRECTORIES:
            return None
        return {"op": "mkdir", "path": self._name(), "mode": self._rng.choice((0o755, 0o700))}

    def _rmdir(self) -> Operation | None:
        empty = [d for d in self.directories if d and not os.listdir(self._mirror.at(d))]
        return {"op": "rmdir", "path": self._rng.choice(empty)} if empty else None

    def _symlink(self) -> Operation:
        return {"op": "symlink", "path": self._name(), "target": f"to-{self._serial}"}

    def _link(self) -> Operation | None:
        return self._on_file("link", to=self._name())

    def _chmod(self) -> Operation | None:
        path = self._rng.choice([d for d in self.directories if d] + self.files or [""])
        modes = (0o700, 0o755) if path in self.directories else (0o600, 0o640, 0o755)
        return {"op": "chmod", "path": path, "mode": self._rng.choice(modes)} if path else None

    def _utimes(self) -> Operation | None:
        time = self._rng.randint(1, 1_700_000_000) * 1_000_000_000 + self._rng.randint(0, 10**9 - 1)
        return self._on_file("utimes", time=time)

    def _fsync(self) -> Operation | None:
        return self._on_file("fsync")

    def _save(self) -> Operation | None:
        """As vim, gedit and most others save: a new file, moved over the old one."""
        target = self._file()
        if target is None:
            return None
        fresh = os.path.join(os.path.dirname(target), f".{os.path.basename(target)}.swp")
        self._planned += [
            {"op": "write", "path": fresh, "offset": 0, **self._data()},
            {"op": "fsync", "path": fresh},
            {"op": "chmod", "path": fresh, "mode": 0o640},
            {"op": "rename", "path": fresh, "to": target},
        ]
        if os.path.lexists(self._mirror.at(fresh)):
            return self._planned.popleft()
        return {"op": "create", "path": fresh, "mode": 0o600}

    def _save_aside(self) -> Operation | None:
        """As emacs saves: the old file becomes the backup, a new one is written."""
        target = self._file()
        if target is None or target.endswith("~"):
            return None
        self._planned += [
            {"op": "create", "path": target, "mode": 0o644},
            {"op": "write", "path": target, "offset": 0, **self._data()},
        ]
        return {"op": "rename", "path": target, "to": target + "~"}

    def _open(self) -> Operation | None:
        free = [slot for slot in range(SLOTS) if slot not in self._mirror.slots]
        path = self._file()
        if not free or path is None:
            return None
        append = self._rng.random() < 0.4
        self._appending[free[0]] = append
        return {"op": "open", "path": path, "slot": free[0], "append": append}

    def _slot(self, op: str, **more: Any) -> Operation | None:
        if not self._mirror.slots:
            return None
        slot = self._rng.choice(sorted(self._mirror.slots))
        return {"op": op, "slot": slot, "append": self._appending[slot], **more}

    def _write_open(self) -> Operation | None:
        return self._slot("write-open", offset=self._rng.randint(0, 6000), **self._data())

    def _truncate_open(self) -> Operation | None:
        return self._slot("truncate-open", size=self._rng.choice((0, 10, 5000)))

    def _fsync_open(self) -> Operation | None:
        return self._slot("fsync-open")

    def _close(self) -> Operation | None:
        return self._slot("close")

    def _still_possible(self, op: Operation) -> bool:
        there = os.path.lexists(self._mirror.at(op["path"]))
        return there != (op["op"] == "create")


class Work:
    """Both sides in step."""

    def __init__(self, mount: Side, mirror: Side, seed: int, log: TextIO) -> None:
        self.mount, self.mirror, self.log = mount, mirror, log
        self.chooser = Chooser(mirror, random.Random(seed))
        self.in_flight: Operation | None = None

    def go(self, most: int) -> dict[str, Any]:
        """Operations until there were enough, or the mount is gone."""
        for done in range(most):
            op = self.chooser.next()
            print(json.dumps(op), file=self.log, flush=True)
            try:
                perform(self.mount, op)
            except OSError as error:
                if error.errno in DOWN:
                    self.in_flight = op
                    self.chooser.forget()
                    return {"done": done, "down": {**op, "paths": self._paths(op)}}
                return {"done": done, "failed": f"{op}: {error}"}
            perform(self.mirror, op)
            if not self._same_time(op):
                self.chooser.forget()
                return {"done": done, "down": {"op": "stat", "paths": self._paths(op)}}
        return {"done": most}

    def _paths(self, op: Operation) -> list[str]:
        """All names of the file that an operation is about."""
        try:
            if "slot" in op and op["op"] != "open":
                about = os.fstat(self.mirror.slots[op["slot"]])
            else:
                about = os.lstat(self.mirror.at(op["path"]))
        except (OSError, KeyError):
            return [op["path"]] if "path" in op else []
        walked = os.walk(self.mirror.root)
        paths = [os.path.join(directory, name) for directory, _, files in walked for name in files]
        same = [path for path in paths if os.path.samestat(os.lstat(path), about)]
        return [os.path.relpath(path, self.mirror.root) for path in same]

    def _same_time(self, op: Operation) -> bool:
        """Give the mirror's file the time that the mount showed; False if it shows no more."""
        try:
            if op["op"] in TOUCHING:
                seen = os.lstat(self.mount.at(op["path"])).st_mtime_ns
                os.utime(self.mirror.at(op["path"]), ns=(seen, seen))
            elif op["op"] in TOUCHING_OPEN:
                seen = os.fstat(self.mount.slots[op["slot"]]).st_mtime_ns
                os.utime(self.mirror.slots[op["slot"]], ns=(seen, seen))
        except OSError as error:
            if error.errno in DOWN:
                return False
            raise
        return True

    def apply(self) -> dict[str, Any]:
        """The operation in flight came through."""
        if self.in_flight is not None:
            perform(self.mirror, self.in_flight)
        self.in_flight = None
        return {}

    def back(self) -> dict[str, Any]:
        """The mount is a new one."""
        self.mount.drop()
        self.mirror.drop()
        self.in_flight = None
        self.chooser.forget()
        return {}


def main() -> None:
    """Serve commands until standard input ends."""
    mount, mirror, seed = sys.argv[1:4]
    os.umask(0)
    with open(mirror + ".log", "w") as log:
        serve(Work(Side(mount), Side(mirror), int(seed), log))


def serve(work: Work) -> None:
    """One command after the other."""
    for line in sys.stdin:
        words = line.split()
        if words[0] == "go":
            answer = work.go(int(words[1]))
        else:
            answer = work.apply() if words[0] == "apply" else work.back()
            print("--", words[0], file=work.log, flush=True)
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
