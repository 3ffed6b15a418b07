"""What people run all day, on a hoarded tree with the server gone; then the server comes back.

One mount a protocol serves all tests of this file, each in a directory of its own; the last
test brings the server back and compares. Where the tool tells what is right by itself (fsck,
integrity_check, "up to date"), it is asked, on the mount and on the server's copy.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.harness import (
    Client,
    assert_same_tree,
    eventually,
    mounted,
    needs_fuse,
    run,
    tree,
)

pytestmark = [*needs_fuse, pytest.mark.slow]

FILES_AT_LEAST = 3000
LARGEST = 1 << 20
"""Static libraries that lie beside a Python are no part of what is tested."""
PACKAGES = ("asyncio", "email", "json", "encodings")
GIT = (
    "git",
    *("-c", "user.name=A", "-c", "user.email=a@example.org"),
    *("-c", "init.defaultBranch=main", "-c", "safe.directory=*", "-c", "gc.auto=0"),
)


def tool(name: str) -> str:
    """The tool's path, or a skip that names it."""
    path = shutil.which(name)
    if path is None:
        pytest.skip(f"no {name} here")
    return path


def write(path: str, text: str) -> None:
    with open(path, "w") as file:
        file.write(text)


def read(path: str) -> str:
    with open(path) as file:
        return file.read()


def _left_out(directory: str, names: list[str]) -> list[str]:
    unwanted = {"__pycache__", "site-packages", "dist-packages"}
    paths = {name: os.path.join(directory, name) for name in names}
    large = [n for n, p in paths.items() if os.path.isfile(p) and os.path.getsize(p) > LARGEST]
    return [*unwanted.intersection(names), *large]


def _count(root: str) -> int:
    return sum(len(files) for _, _, files in os.walk(root))


def fill(root: str, *, hard_links: bool) -> int:
    """Put the standard library there, and more where that is too little; how many files.

    Hard links only where the protocol shows that two names are one file.
    """
    library = os.path.dirname(os.__file__)
    shutil.copytree(library, f"{root}/library", symlinks=True, ignore=_left_out)
    for index, (directory, _, names) in enumerate(os.walk("/usr/share")):
        if (have := _count(root)) >= FILES_AT_LEAST + 100:
            break
        kept = [n for n in names if n not in _left_out(directory, names)]
        for name in kept[: FILES_AT_LEAST + 100 - have]:
            os.makedirs(f"{root}/share/{index}", exist_ok=True)
            shutil.copy2(f"{directory}/{name}", f"{root}/share/{index}", follow_symlinks=False)
    os.makedirs(f"{root}/links")
    if hard_links:
        os.link(f"{root}/library/os.py", f"{root}/links/same.py")
    os.symlink("../library/json", f"{root}/links/json")
    os.symlink("nowhere", f"{root}/links/dangling")
    return _count(root)


@pytest.fixture(scope="module", params=["dir", "sftp"])
def offline(request: pytest.FixtureRequest, tmp_path_factory: Any) -> Iterator[Client]:
    """A mount whose whole tree was hoarded and whose server was then killed."""
    base = str(tmp_path_factory.mktemp(f"tools-{request.param}"))
    with mounted(request.param, base) as client:
        count = fill(client.server.root, hard_links=request.param == "dir")
        assert count >= FILES_AT_LEAST
        begin = time.monotonic()
        client.awayfs("pin", client.mountpoint, timeout=120)
        print(f"{request.param}: hoarded {count} files in {time.monotonic() - begin:.1f} s")
        client.server.cut()
        run("ls", client.mountpoint, check=False)
        eventually(lambda: client.status()["mode"] == "disconnected", "offline by itself")
        yield client
    shutil.rmtree(base, ignore_errors=True)


def _same_below(client: Client, name: str) -> None:
    grain = client.server.time_grain_ns
    assert_same_tree(
        tree(client.path(name), mtime_grain_ns=grain),
        tree(os.path.join(client.server.files, name), mtime_grain_ns=grain),
    )


def test_every_byte_reads_back(offline: Client) -> None:
    for name in sorted(os.listdir(offline.server.files)):
        _same_below(offline, name)


def test_find_grep_and_tar_see_the_servers_tree(offline: Client) -> None:
    commands = (
        "find . -type f -size +20k | sort",
        "find . -newermt 2001-01-01 -name '*.py' | sort",
        "grep -rlE 'def (__init__|main)' library | sort",
        "du --apparent-size -sb library/json | cut -f1",
        "tar --sort=name -cf - library links | sha256sum",
    )
    for command in commands:
        here, there = (
            run("bash", "-o", "pipefail", "-c", command, cwd=where)
            for where in (offline.mountpoint, offline.server.files)
        )
        assert here == there and here, command


def test_python_compiles_and_imports(offline: Client) -> None:
    library = offline.path("library")
    compile_all = [sys.executable, "-m", "compileall", "-q", *PACKAGES]
    run(*compile_all, cwd=library)
    cached = f"{library}/json/__pycache__"
    before = {name: os.stat(f"{cached}/{name}").st_mtime_ns for name in os.listdir(cached)}
    assert len(before) >= 5
    run(*compile_all, cwd=library)
    assert before == {n: os.stat(f"{cached}/{n}").st_mtime_ns for n in os.listdir(cached)}
    program = "import sys; sys.path[:0] = ['.']; import json.tool as t; print(t.__file__)"
    said = run(sys.executable, "-I", "-S", "-c", program, cwd=library)
    assert os.path.realpath(os.path.join(library, said.strip())).endswith("json/tool.py")


def git(where: str, *args: str) -> str:
    return run(*GIT, *args, cwd=where)


def test_git_works(offline: Client) -> None:
    tool("git")
    work, clone = offline.path("git"), offline.path("clone")
    os.mkdir(work)
    for package in PACKAGES:
        shutil.copytree(offline.path("library", package), f"{work}/{package}", symlinks=True)
    git(work, "init", "-q")
    write(f"{work}/.gitignore", "__pycache__\n")
    git(work, "add", ".")
    git(work, "commit", "-q", "-m", "first")
    assert git(work, "status", "--porcelain") == ""
    git(work, "checkout", "-q", "-b", "branch")
    git(work, "mv", "json", "jason")
    write(f"{work}/asyncio/__init__.py", "changed\n")
    git(work, "commit", "-q", "-a", "-m", "second")
    git(work, "checkout", "-q", "main")
    assert os.path.isdir(f"{work}/json") and not os.path.exists(f"{work}/jason/decoder.py")
    assert git(work, "status", "--porcelain") == ""
    git(work, "clone", "-q", work, clone)
    git(clone, "checkout", "-q", "branch")
    assert read(f"{clone}/asyncio/__init__.py") == "changed\n"
    git(work, "gc", "-q")
    for repository in (work, clone):
        git(repository, "fsck", "--strict")
        assert git(repository, "status", "--porcelain") == ""


WRITER = """
import sqlite3, sys
db = sqlite3.connect(sys.argv[1], timeout=20)
for number in range(150):
    with db:
        db.execute("INSERT INTO t VALUES (?, ?)", (number, "x" * (number * 13 % 3000)))
        db.execute("UPDATE total SET n = n + 1")
db.close()
"""
READER = """
import sqlite3, sys
db = sqlite3.connect(sys.argv[1], timeout=20)
seen = -1
while seen < 150:
    rows, total = db.execute("SELECT (SELECT count(*) FROM t), n FROM total").fetchone()
    assert rows == total and rows >= seen, (rows, total, seen)
    seen = rows
assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
db.close()
"""


@pytest.mark.parametrize("journal", ["wal", "delete", "truncate"])
def test_sqlite_reads_and_writes_at_once(offline: Client, journal: str) -> None:
    where = offline.path("sqlite")
    os.makedirs(where, exist_ok=True)
    path = f"{where}/{journal}.db"
    setup = (
        "import sqlite3, sys; db = sqlite3.connect(sys.argv[1]);"
        f"assert db.execute('PRAGMA journal_mode={journal}').fetchone() == ('{journal}',);"
        "db.executescript('CREATE TABLE t (a, b); CREATE INDEX i ON t (b);"
        " CREATE TABLE total (n); INSERT INTO total VALUES (0)')"
    )
    run(sys.executable, "-c", setup, path)
    programs = [
        subprocess.Popen([sys.executable, "-c", program, path], stderr=subprocess.PIPE, text=True)
        for program in (READER, WRITER)
    ]
    try:
        for program in programs:
            _, errors = program.communicate(timeout=60)
            assert program.returncode == 0, errors
    finally:
        for program in programs:
            program.kill()
            program.wait()
    assert sorted(os.listdir(where)).count(f"{journal}.db-wal") == 0


def _save_by_rename(path: str, text: str) -> None:
    write(path + ".tmp", text)
    shutil.copymode(path, path + ".tmp")
    os.rename(path + ".tmp", path)


def _save_with_backup(path: str, text: str) -> None:
    os.rename(path, path + "~")
    write(path, text)
    os.unlink(path + "~")


def _save_in_place(path: str, text: str) -> None:
    shutil.copy2(path, path + "~")
    with open(path, "r+") as file:
        file.truncate(0)
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.unlink(path + "~")


@pytest.mark.parametrize("save", [_save_by_rename, _save_with_backup, _save_in_place])
def test_editors_save(offline: Client, save: Any) -> None:
    path = offline.path("library", "email", save.__name__)
    source = offline.path("library", "email", "header.py")
    shutil.copy2(source, path)
    hoarded = offline.path("library", "json", f"{'decoder' if 'rename' in path else 'encoder'}.py")
    for number, edited in enumerate((path, hoarded, path, hoarded)):
        save(edited, f"version {number} by {save.__name__}\n")
        assert read(edited) == f"version {number} by {save.__name__}\n"
        assert os.path.basename(edited) in os.listdir(os.path.dirname(edited))
        assert not [n for n in os.listdir(os.path.dirname(edited)) if n.endswith(("~", ".tmp"))]


@pytest.mark.parametrize("copy", ["yes", "no"])
def test_vim_saves(offline: Client, copy: str) -> None:
    vim = tool("vim")
    path = offline.path("library", "json", "scanner.py")
    command = [
        vim,
        "-u",
        "NONE",
        "-N",
        "-es",
        f"+set backupcopy={copy} writebackup",
        f"+1s/^/{copy} /",
    ]
    run(*command, "+wq", path, stdin=subprocess.DEVNULL)
    assert read(path).startswith(f"{copy} ")


def test_rsync_copies_and_finds_nothing_left(offline: Client) -> None:
    rsync = tool("rsync")
    source, target = offline.path("library", "asyncio") + "/", offline.path("rsynced") + "/"
    run(rsync, "-aH", source, target)
    assert run(rsync, "-aHni", "--checksum", "--delete", source, target) == ""
    write(f"{source}added.py", "added = 1\n")
    os.unlink(f"{source}staggered.py")
    said = run(rsync, "-aHi", "--delete", source, target)
    assert "added.py" in said and "*deleting" in said and "events.py" not in said
    assert run(rsync, "-aHni", "--checksum", "--delete", source, target) == ""


def test_make_goes_by_timestamps(offline: Client) -> None:
    make = tool("make")
    work = offline.path("make")
    os.mkdir(work)
    write(f"{work}/a.in", "a\n")
    write(f"{work}/Makefile", "all: b c\nb: a.in\n\tcp a.in b\nc: b\n\ttr a c < b > c\n")
    assert "tr a c" in run(make, cwd=work)
    assert "Nothing to be done" in run(make, cwd=work)
    ahead = time.time() + 2
    write(f"{work}/a.in", "aa\n")
    os.utime(f"{work}/a.in", (ahead, ahead))
    assert "cp a.in b" in run(make, cwd=work)
    assert read(f"{work}/c") == "cc\n"
    os.utime(f"{work}/a.in", (1, 1))
    assert "Nothing to be done" in run(make, cwd=work)


def test_trees_are_copied_moved_and_unpacked(offline: Client) -> None:
    source = offline.path("library", "email")
    before = tree(source)
    run("cp", "-a", source, offline.path("copied"))
    assert_same_tree(tree(offline.path("copied")), before)
    os.mkdir(offline.path("moved"))
    run("mv", offline.path("copied"), offline.path("moved"))
    run("mv", offline.path("moved", "copied"), offline.path("moved", "again"))
    assert_same_tree(tree(offline.path("moved", "again")), before)
    run("mv", offline.path("library", "encodings"), offline.path("moved", "hoarded"))
    os.mkdir(offline.path("unpacked"))
    unpack = "tar -C library -cf - json | tar -C unpacked -xpf -"
    run("bash", "-o", "pipefail", "-c", unpack, cwd=offline.mountpoint)
    unpacked, packed = offline.path("unpacked", "json"), offline.path("library", "json")
    assert_same_tree(tree(unpacked, mtime_grain_ns=10**9), tree(packed, mtime_grain_ns=10**9))
    run("rm", "-r", offline.path("unpacked", "json", "tool.py"))


def test_all_of_it_reaches_the_server(offline: Client) -> None:
    client = offline
    records = client.status()["pending"]["records"]
    client.server.restore()
    client.online()
    begin = time.monotonic()
    client.sync()
    print(f"{client.server.scheme}: {records} records in {time.monotonic() - begin:.1f} s")
    assert records > 0
    assert client.conflicts() == []
    assert client.status()["pending"]["records"] == 0
    _become_equal(client)
    _check_on_server(client.server.root)


def _become_equal(client: Client) -> None:
    """Directory times converge with the next observation (``fresh``)."""
    grain = client.server.time_grain_ns
    there = tree(client.server.root, mtime_grain_ns=grain)
    here: dict[str, Any] = {}

    def equal() -> bool:
        nonlocal here
        here = tree(client.mountpoint, mtime_grain_ns=grain)
        return here == there

    try:
        eventually(equal, "mount and server equal")
    except AssertionError:
        assert_same_tree(here, there)


def _check_on_server(root: str) -> None:
    for name in ("git", "clone"):
        if os.path.isdir(f"{root}/{name}"):
            git(f"{root}/{name}", "fsck", "--strict")
            assert git(f"{root}/{name}", "status", "--porcelain") == ""
    for name in sorted(os.listdir(f"{root}/sqlite")):
        check = (
            "import sqlite3, sys; db = sqlite3.connect(sys.argv[1]);"
            " print(db.execute(sys.argv[2]).fetchone()[0])"
        )
        path = f"{root}/sqlite/{name}"
        assert run(sys.executable, "-c", check, path, "PRAGMA integrity_check") == "ok\n"
        assert run(sys.executable, "-c", check, path, "SELECT count(*) FROM t") == "150\n"
