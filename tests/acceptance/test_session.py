"""The offline session as a snapshot: looked at, discarded, carried to another machine."""

from __future__ import annotations

import contextlib
import gzip
import io
import json
import os
import random
import shutil
import subprocess
import tarfile
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.harness import (
    Client,
    assert_same_tree,
    eventually,
    make_server,
    mounted,
    needs_fuse,
    tree,
)

pytestmark = needs_fuse

Tree = dict[str, Any]


def write(path: str, text: str) -> None:
    with open(path, "w") as file:
        file.write(text)


def read(path: str) -> str:
    with open(path) as file:
        return file.read()


def facts(root: str, grain: int = 1) -> Tree:
    """A tree without the times of directories and without hard-link groups."""
    found = tree(root, mtime_grain_ns=grain, directories_mtime=False)
    return {path: value[:-1] if value[0] != 0o040000 else value for path, value in found.items()}


def records(client: Client) -> list[dict[str, Any]]:
    answer = json.loads(client.awayfs("journal", "list", "--mount", client.mountpoint, "--json"))
    return list(answer["records"])


def changes(client: Client, *args: str) -> list[dict[str, Any]]:
    answer = json.loads(client.awayfs("diff", *(args or (client.mountpoint,)), "--json"))
    return list(answer["changes"])


def letters(client: Client, *args: str) -> dict[str, str]:
    """Path → letters; a rename is ``old -> new``."""
    shown = {}
    for change in changes(client, *args):
        path = change["path"]
        if change["from_path"] is not None:
            path = f"{change['from_path']} -> {path}"
        shown[path] = change["letters"]
    return shown


# --- a session of many changes --------------------------------------------------------------


def populate(root: str, rng: random.Random) -> None:
    for top in "abcd":
        for low in ("x", "y"):
            os.makedirs(f"{root}/{top}/{low}")
            for number in range(5):
                write(f"{root}/{top}/{low}/f{number}", f"{top}{low}{number}\n" * rng.randint(1, 40))
    os.symlink("a/x/f0", f"{root}/link")
    write(f"{root}/single", "alone\n")


class Worker:
    """Random changes in a mount, like those of a person who is in a hurry."""

    def __init__(self, root: str, rng: random.Random) -> None:
        self.root = root
        self.rng = rng
        self.serial = 0

    def work(self, count: int) -> None:
        done = 0
        while done < count:
            with contextlib.suppress(OSError):
                self.rng.choice(STEPS)(self)
                done += 1

    def files(self) -> list[str]:
        return [os.path.join(d, n) for d, _, names in os.walk(self.root) for n in names]

    def directories(self) -> list[str]:
        return [d for d, _, _ in os.walk(self.root)]

    def a_file(self) -> str:
        return self.rng.choice(self.files())

    def fresh(self) -> str:
        self.serial += 1
        name = self.rng.choice(["n", "ü ", "f1", "f2"]) + str(self.serial % 40)
        return os.path.join(self.rng.choice(self.directories()), name)

    def create(self) -> None:
        with open(self.fresh(), "x") as file:
            file.write("made here\n" * self.rng.randint(0, 20))

    def edit(self) -> None:
        path = self.a_file()
        if not os.path.islink(path):
            with open(path, "a") as file:
                file.write("more\n")

    def save(self) -> None:
        """An editor's save: a new file, renamed over the old one."""
        path = self.a_file()
        write(path + ".tmp", "saved\n" * self.rng.randint(1, 9))
        os.rename(path + ".tmp", path)

    def remove(self) -> None:
        os.unlink(self.a_file())

    def rename(self) -> None:
        os.rename(self.a_file(), self.fresh())

    def rename_directory(self) -> None:
        os.rename(self.rng.choice(self.directories()[1:]), self.fresh())

    def replace(self) -> None:
        os.rename(self.a_file(), self.a_file())

    def mkdir(self) -> None:
        os.mkdir(self.fresh())

    def remove_tree(self) -> None:
        if self.rng.random() < 0.15:
            shutil.rmtree(self.rng.choice(self.directories()[1:]))

    def chmod(self) -> None:
        path = self.a_file()
        if not os.path.islink(path):
            os.chmod(path, self.rng.choice([0o600, 0o644, 0o755]))

    def symlink(self) -> None:
        os.symlink(self.rng.choice(["somewhere", "../out", "a"]), self.fresh())

    def truncate(self) -> None:
        path = self.a_file()
        if not os.path.islink(path):
            os.truncate(path, self.rng.randint(0, 60))


STEPS: list[Callable[[Worker], None]] = [
    Worker.create,
    Worker.create,
    Worker.edit,
    Worker.edit,
    Worker.save,
    Worker.remove,
    Worker.rename,
    Worker.rename_directory,
    Worker.replace,
    Worker.mkdir,
    Worker.remove_tree,
    Worker.chmod,
    Worker.symlink,
    Worker.truncate,
]


@contextlib.contextmanager
def offline(kind: str, base: str, seed: int = 1, options: str = "") -> Iterator[Client]:
    """A client that has everything here, and is offline."""
    with mounted(kind, base, options) as client:
        populate(client.server.root, random.Random(seed))
        client.awayfs("pin", client.mountpoint)
        client.offline()
        yield client


def played(base: Tree, local: Tree, found: list[dict[str, Any]]) -> Tree:
    """The base after the differences, as a reader understands them.

    Gone and renamed from the inside out, new and renamed from the outside in; what is told to be
    new or changed is looked up in the local tree, and nothing else is.
    """
    after = dict(base)
    taken: dict[int, Tree] = {}

    def take(path: str) -> Tree:
        return {p[len(path) :]: after.pop(p) for p in list(after) if _is_within(p, path)}

    leaving = [c for c in found if set(c["letters"]) & set("DR")]
    for change in sorted(leaving, key=lambda c: -(c["from_path"] or c["path"]).count("/")):
        taken[id(change)] = take(change["from_path"] or change["path"])
    for change in sorted(found, key=lambda c: c["path"].count("/")):
        path, how = change["path"], change["letters"]
        if "D" in how:
            assert set(taken[id(change)]) == {""}, "something was left in what is gone"
            continue
        if "R" in how:
            after.update({path + below: value for below, value in taken[id(change)].items()})
        assert ("A" in how) == (path not in after), change
        if set(how) & set("AMTP"):
            after[path] = local[path]
    return after


def _is_within(path: str, directory: str) -> bool:
    return path == directory or path.startswith(directory + "/")


@pytest.mark.parametrize(("kind", "seed"), [("dir", 1), ("dir", 2), ("sftp", 3)])
def test_diff_names_all_that_differs_and_discard_takes_all_of_it_back(
    kind: str, seed: int, tmp_path: object
) -> None:
    with offline(kind, str(tmp_path), seed) as client:
        before, server = facts(client.mountpoint), tree(client.server.root)
        Worker(client.mountpoint, random.Random(seed)).work(300)
        local = facts(client.mountpoint)
        found = changes(client)
        assert len(found) > 40
        assert_same_tree(played(before, local, found), local)

        client.awayfs("discard", client.mountpoint, "--all")
        assert records(client) == []
        assert changes(client) == []
        assert_same_tree(facts(client.mountpoint), before)
        client.online()
        client.sync()
        assert_same_tree(tree(client.server.root), server)
        assert_same_tree(
            facts(client.mountpoint, client.server.time_grain_ns),
            facts(client.server.root, client.server.time_grain_ns),
        )


@pytest.mark.parametrize("seed", [1, 2])
def test_what_is_discarded_bit_by_bit_leaves_a_session_that_can_be_sent(
    seed: int, tmp_path: object
) -> None:
    """Some of it is given up, the rest is sent: then both sides are the same, without conflict."""
    with offline("dir", str(tmp_path), seed) as client:
        rng = random.Random(seed)
        Worker(client.mountpoint, rng).work(120)
        for change in rng.sample(changes(client), 12):
            client.awayfs("discard", client.path(change["path"]), check=False)
        local = facts(client.mountpoint)
        client.online()
        client.sync()
        assert client.conflicts() == []
        assert records(client) == []
        assert_same_tree(facts(client.mountpoint), local)
        assert_same_tree(facts(client.server.root), local)


# --- one kind of change after the other ------------------------------------------------------


def made(client: Client) -> None:
    os.mkdir(client.path("new"))
    write(client.path("new/file"), "new\n")


def linked(client: Client) -> None:
    os.link(client.path("single"), client.path("a/twin"))


def swapped(client: Client) -> None:
    os.rename(client.path("a"), client.path("t"))
    os.rename(client.path("b"), client.path("a"))
    os.rename(client.path("t"), client.path("b"))


def nested(client: Client) -> None:
    os.rename(client.path("a/x"), client.path("x"))
    os.rename(client.path("a"), client.path("x/a"))


def saved(client: Client) -> None:
    write(client.path("tmp"), "saved\n")
    os.rename(client.path("tmp"), client.path("single"))


def retyped(client: Client) -> None:
    os.unlink(client.path("single"))
    os.mkdir(client.path("single"))
    os.unlink(client.path("link"))
    write(client.path("link"), "a file\n")


def set_all(client: Client) -> None:
    os.chmod(client.path("single"), 0o600)
    os.utime(client.path("single"), (1, 1))
    os.chmod(client.path("a"), 0o700)
    os.setxattr(client.path("single"), "user.k", b"here")
    os.removexattr(client.path("single"), "user.gone")


CASES: dict[str, tuple[Callable[[Client], None], dict[str, str]]] = {
    "made": (made, {"new": "A", "new/file": "A"}),
    "linked": (linked, {"a/twin": "A"}),
    "swapped": (swapped, {"a -> b": "R", "b -> a": "R"}),
    "nested": (nested, {"a/x -> x": "R", "a -> x/a": "R"}),
    "saved": (saved, {"single": "M"}),
    "retyped": (retyped, {"single": "T", "link": "T"}),
    "set": (set_all, {"single": "P", "a": "P"}),
    "gone": (lambda client: shutil.rmtree(client.path("a/x")), {
        "a/x": "D", **{f"a/x/f{n}": "D" for n in range(5)}
    }),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_each_kind_is_named_and_goes_back(name: str, tmp_path: object) -> None:
    act, expected = CASES[name]
    with mounted("dir", str(tmp_path)) as client:
        populate(client.server.root, random.Random(0))
        os.setxattr(f"{client.server.root}/single", "user.k", b"base")
        os.setxattr(f"{client.server.root}/single", "user.gone", b"was here")
        client.awayfs("pin", client.mountpoint)
        assert os.getxattr(client.path("single"), "user.k") == b"base"
        client.offline()
        before = tree(client.mountpoint)
        act(client)
        assert letters(client) == expected
        paths = [client.path(c["path"]) for c in changes(client)]
        planned = client.awayfs("discard", "--dry-run", *paths)
        assert len(planned.splitlines()) == len(expected)
        assert letters(client) == expected
        client.awayfs("discard", *paths)
        assert records(client) == []
        assert_same_tree(tree(client.mountpoint), before)
        assert os.getxattr(client.path("single"), "user.k") == b"base"
        assert os.getxattr(client.path("single"), "user.gone") == b"was here"


def test_discarding_takes_the_servers_version_while_connected(tmp_path: object) -> None:
    """What is in conflict, or refused, is the server's again."""
    with offline("dir", str(tmp_path)) as client:
        write(client.path("single"), "mine\n")
        os.rename(client.path("a/x/f0"), client.path("a/x/mine"))
        write(f"{client.server.root}/single", "theirs\n")
        client.online()
        client.sync(check=False)
        assert len(client.conflicts()) == 1
        client.awayfs("discard", client.path("single"))
        assert client.conflicts() == [] and records(client) == []
        eventually(lambda: read(client.path("single")) == "theirs\n", "the server's version")
        assert read(f"{client.server.root}/single") == "theirs\n"


def test_what_was_discarded_is_in_the_history(tmp_path: object) -> None:
    with offline("dir", str(tmp_path)) as client:
        write(client.path("single"), "an hour of work\n")
        write(client.path("fresh"), "another hour\n")
        client.awayfs("discard", client.path("single"), client.path("fresh"))
        assert not os.path.exists(client.path("fresh"))
        kept = _history(client)
        assert sorted(kept) == ["an hour of work\n", "another hour\n"]
        for name, content in (("single", "an hour of work\n"), ("fresh", "another hour\n")):
            client.awayfs("resolve", "--undo", client.path(name))
            assert read(client.path(name)) == content
        client.online()
        client.sync()
        assert read(f"{client.server.root}/single") == "an hour of work\n"
        assert read(f"{client.server.root}/fresh") == "another hour\n"


def _history(client: Client) -> list[str]:
    volumes = os.path.join(client.state, "awayfs", "volumes")
    (volume,) = os.listdir(volumes)
    folder = os.path.join(volumes, volume, "history")
    return [read(os.path.join(folder, name)) for name in os.listdir(folder)]


def test_open_files_keep_what_they_had(tmp_path: object) -> None:
    with offline("dir", str(tmp_path)) as client:
        with open(client.path("single"), "r+") as edited, open(client.path("new"), "w+") as new:
            edited.write("edited")
            new.write("made here")
            edited.flush()
            new.flush()
            client.awayfs("discard", client.mountpoint, "--all")
            assert read(client.path("single")) == "alone\n"
            assert not os.path.exists(client.path("new"))
            for file, content in ((edited, "edited"), (new, "made here")):
                file.write(", and on")
                file.flush()
                file.seek(0)
                assert file.read() == f"{content}, and on"
        assert records(client) == []
        write(client.path("single"), "edited again\n")
        client.online()
        client.sync()
        assert read(f"{client.server.root}/single") == "edited again\n"


def test_a_large_file_that_is_being_written_is_not_discarded(tmp_path: object) -> None:
    """What was given up would change with what is written later: no copy, no discarding."""
    with offline("dir", str(tmp_path), options="base-limit=4K") as client:
        write(client.path("other"), "made here\n")
        with open(client.path("single"), "w") as file:
            file.write("given up" * 1000)
            file.flush()
            waiting = records(client)
            for command in (
                ("discard", client.mountpoint, "--all"),
                ("discard", client.path("single")),
                ("journal", "drop", "--mount", client.mountpoint, str(waiting[-1]["seq"])),
            ):
                assert "single: a program is writing it" in client.fails(*command)
            assert read(client.path("other")) == "made here\n"
            assert records(client) == waiting
            file.write("later")
        client.awayfs("discard", client.mountpoint, "--all")
        assert sorted(_history(client)) == ["given up" * 1000 + "later", "made here\n"]


def test_a_base_that_is_not_here_comes_from_the_server_later(tmp_path: object) -> None:
    with mounted("dir", str(tmp_path), "base-limit=16") as client:
        write(f"{client.server.root}/large", "0123456789\n" * 100)
        client.awayfs("pin", client.mountpoint)
        client.offline()
        write(client.path("large"), "mine\n")
        shown = client.awayfs("diff", client.path("large"))
        here = "the base's content is not here" not in shown  # a file system with reflinks has it
        client.awayfs("discard", client.path("large"))
        state = os.getxattr(client.path("large"), "user.awayfs.state")
        assert state == (b"clean" if here else b"placeholder")
        assert os.stat(client.path("large")).st_size == 1100
        client.online()
        assert read(client.path("large")) == "0123456789\n" * 100


# --- refusals --------------------------------------------------------------------------------


def test_what_hangs_together_is_not_thrown_away_unnamed(tmp_path: object) -> None:
    with offline("dir", str(tmp_path)) as client:
        os.rename(client.path("single"), client.path("moved"))
        write(client.path("single"), "new work\n")
        line = client.fails("discard", client.path("moved"))
        assert "single" in line and "name it too" in line
        assert read(client.path("single")) == "new work\n"
        assert len(records(client)) == 3
        client.awayfs("discard", client.path("moved"), client.path("single"))
        assert read(client.path("single")) == "alone\n" and records(client) == []


def test_a_removed_directory_comes_back_for_what_was_in_it(tmp_path: object) -> None:
    with offline("dir", str(tmp_path)) as client:
        shutil.rmtree(client.path("a"))
        said = client.awayfs("discard", "--dry-run", client.path("a/x/f3"))
        assert said.count("comes back") == 2
        client.awayfs("discard", client.path("a/x/f3"))
        assert os.listdir(client.path("a")) == ["x"] and os.listdir(client.path("a/x")) == ["f3"]
        client.online()
        client.sync()
        assert client.conflicts() == []
        assert os.listdir(f"{client.server.root}/a/x") == ["f3"]


def test_bad_input_to_diff_and_discard(tmp_path: object) -> None:
    with offline("dir", str(tmp_path)) as client:
        assert client.awayfs("diff", client.mountpoint) == "nothing differs\n"
        assert "nothing was changed" in client.fails("discard", client.path("single"))
        assert "no such file" in client.fails("discard", client.path("nowhere"))
        assert "no such file" in client.fails("diff", client.path("nowhere/at/all"))
        assert "not inside" in client.fails("diff", "/etc/passwd")
        assert "not inside" in client.fails("discard", "/etc/passwd")
        assert "--all" in client.fails("discard", client.mountpoint, code=2)
        assert "--all" in client.fails("discard", client.path("a"), "--all", code=2)
        assert "not in the journal" in client.fails(
            "journal", "drop", "77", "--mount", client.mountpoint
        )


def _runs(pid: int) -> bool:
    try:
        return bool(os.readlink(f"/proc/{pid}/exe"))
    except OSError:
        return False


def test_in_flight_is_refused_while_the_server_is_away(tmp_path: object) -> None:
    """A record that may be on the server already is not forgotten."""
    server = make_server("dir", str(tmp_path))
    client = Client(str(tmp_path), server)
    try:
        write(f"{server.root}/single", "alone\n")
        client.mount()
        client.awayfs("pin", client.mountpoint)
        client.offline()
        write(client.path("single"), "mine\n")
        client.umount()
        client.mount(fault="replay.acted")
        pid = client.pid
        client.awayfs("online", client.mountpoint, check=False)
        eventually(lambda: not _runs(pid), "the daemon's death")
        client.clear()
        server.cut()
        client.mount()
        assert "go online" in client.fails("discard", client.path("single"))
        assert read(client.path("single")) == "mine\n"
        server.restore()
        client.online()
        client.sync()
        assert client.conflicts() == []
        assert read(f"{server.root}/single") == "mine\n"
    finally:
        client.close()
        server.close()


def test_journal_drop_takes_what_depends_on_it(tmp_path: object) -> None:
    with offline("dir", str(tmp_path)) as client:
        os.chmod(client.path("single"), 0o600)
        write(client.path("single"), "edited\n")
        os.mkdir(client.path("new"))
        write(client.path("new/file"), "inside\n")
        by_kind = {(r["kind"], r["path"]): r["seq"] for r in records(client)}
        drop = ("journal", "drop", "--mount", client.mountpoint)
        client.awayfs(*drop, str(by_kind["setattr", "single"]))
        assert os.stat(client.path("single")).st_mode & 0o777 == 0o644
        assert read(client.path("single")) == "edited\n"
        said = client.awayfs(*drop, "--dry-run", str(by_kind["create", "new"]))
        assert "new/file" in said
        waiting = records(client)
        for flags in ((), ("--yes",)):
            said = client.fails(*drop, *flags, str(by_kind["create", "new"]))
            assert "more would go with it" in said and "--with-others" in said
        assert records(client) == waiting and read(client.path("new/file")) == "inside\n"
        client.awayfs(*drop, "--with-others", str(by_kind["create", "new"]))
        assert not os.path.exists(client.path("new"))
        assert _history(client) == ["inside\n"]
        client.awayfs(*drop, str(by_kind["store", "single"]))
        assert read(client.path("single")) == "alone\n" and records(client) == []


# --- what is printed -------------------------------------------------------------------------


def test_text_is_shown_line_by_line_and_the_rest_in_one(tmp_path: object) -> None:
    with mounted("dir", str(tmp_path)) as client:
        write(f"{client.server.root}/text", "one\ntwo\nthree")
        write(f"{client.server.root}/escape\x1b[31m", "old\n")
        with open(f"{client.server.root}/binary", "wb") as file:
            file.write(b"\0\1")
        client.awayfs("pin", client.mountpoint)
        client.offline()
        write(client.path("text"), "one\n2\nthree\n")
        write(client.path("escape\x1b[31m"), "new \x1b]0;title\x07\n")
        with open(client.path("binary"), "wb") as file:
            file.write(b"\0\2")
        shown = client.awayfs("diff", client.mountpoint, "--unified")
        assert "\x1b" not in shown and '"a/escape\\x1b[31m"' in shown
        assert "+new \\x1b]0;title\\x07\n" in shown
        assert "binary: binary files differ\n" in shown
        assert (
            "--- a/text\n+++ b/text\n@@ -1,3 +1,3 @@\n one\n-two\n-three\n"
            "\\ No newline at end of file\n+2\n+three\n"
        ) in shown
        names = client.awayfs("diff", "--name-only", client.path("text"))
        assert names == f"M   {client.mountpoint}/text\n"
        counted = client.awayfs("diff", "--stat", client.path("text"))
        assert "+2 -2" in counted and "1 path, 2 lines added, 2 lines removed" in counted


# --- to another machine ----------------------------------------------------------------------


@contextlib.contextmanager
def another(client: Client, options: str = "") -> Iterator[Client]:
    """A second machine that mounts the same server for the first time."""
    second = Client(client.base, client.server, "second")
    try:
        second.mount(options)
        yield second
    finally:
        second.close()


def export(client: Client, file: str) -> str:
    client.awayfs("journal", "export", file, "--mount", client.mountpoint)
    return file


def at(client: Client, *args: str) -> tuple[str, ...]:
    """A journal command about this mount; others of this machine may be seen, too."""
    return ("journal", *args, "--mount", client.mountpoint)


@pytest.mark.parametrize(
    ("kind", "suffix"), [("dir", "tar.gz"), ("sftp", "tar"), ("dir", "tar.zst")]
)
def test_a_session_goes_on_elsewhere(kind: str, suffix: str, tmp_path: object) -> None:
    if suffix == "tar.zst":
        pytest.importorskip("zstandard")
    with offline(kind, str(tmp_path), 5) as client:
        Worker(client.mountpoint, random.Random(5)).work(150)
        local = facts(client.mountpoint, client.server.time_grain_ns)
        file = export(client, f"{tmp_path}/work.{suffix}")
        client.umount()
        with another(client) as second:
            said = second.awayfs(*at(second, "import", "--dry-run", file))
            assert "would be made again" in said and records(second) == []
            second.awayfs(*at(second, "import", file))
            second.sync()
            assert second.conflicts() == [] and records(second) == []
            grain = client.server.time_grain_ns
            assert_same_tree(facts(second.mountpoint, grain), local)
            assert_same_tree(facts(client.server.root, grain), local)


def test_names_that_are_no_text_go_along(tmp_path: object) -> None:
    """And an empty file's time."""
    base = str(tmp_path)
    with offline("dir", base) as client:
        name = os.fsdecode(b"\xffno text\xfe")
        write(client.path(name), "of a strange name")
        os.mkdir(client.path("in " + name))
        write(client.path("in " + name, "plain"), "in a strange directory")
        os.symlink(name, client.path("to it"))
        write(client.path("empty"), "")
        os.utime(client.path("empty"), ns=(10**18, 10**18 + 1))
        there = next(
            path for path in sorted(os.listdir(client.server.root)) if not path.startswith(".")
        )
        os.rename(client.path(there), client.path(there + name))
        wanted = facts(client.mountpoint)
        file = export(client, f"{tmp_path}/work.tar.gz")
        with another(client) as other:
            other.awayfs(*at(other, "import", file))
            other.sync()
            assert_same_tree(facts(other.server.root), wanted)


def test_what_the_server_changed_since_is_a_conflict(tmp_path: object) -> None:
    with offline("dir", str(tmp_path)) as client:
        write(client.path("single"), "mine\n")
        os.unlink(client.path("a/x/f0"))
        write(client.path("fresh"), "mine, too\n")
        write(client.path("a/y/f1"), "mine\n")
        file = export(client, f"{tmp_path}/work.tar.gz")
        root = client.server.root
        write(f"{root}/single", "theirs\n")
        write(f"{root}/a/x/f0", "theirs\n")
        write(f"{root}/fresh", "theirs\n")
        client.umount()
        with another(client) as second:
            assert read(second.path("single")) == "theirs\n"
            said = second.awayfs(*at(second, "import", file))
            assert "single: the server has another version" in said
            second.sync(check=False)
            kinds = {c["path"]: c["kind"] for c in second.conflicts()}
            assert kinds == {
                "single": "update/update",
                "a/x/f0": "remove/update",
                "fresh": "name/name",
            }
            assert read(f"{root}/single") == read(f"{root}/fresh") == "theirs\n"
            assert read(f"{root}/a/x/f0") == "theirs\n" and read(f"{root}/a/y/f1") == "mine\n"
            variants = second.path(".awayfs/conflicts/single")
            assert read(f"{variants}/base") == "alone\n"
            assert read(f"{variants}/local") == "mine\n"


def test_a_lost_state_comes_back_from_the_archive(tmp_path: object) -> None:
    """And by hand: the files are there under their names."""
    with offline("dir", str(tmp_path)) as client:
        write(client.path("a/x/f0"), "mine\n")
        os.rename(client.path("a"), client.path("z"))
        file = export(client, f"{tmp_path}/work.tar")
        with tarfile.open(file) as archive:
            names = archive.getnames()
            assert "README.txt" in names and "base/a/x/f0" in names
            content = archive.extractfile("files/z/x/f0")
            assert content is not None and content.read() == b"mine\n"
            changed = archive.extractfile("changes.txt")
            assert changed is not None and b"a -> " in changed.read()
        client.umount()
        shutil.rmtree(client.state)
        os.makedirs(client.state, mode=0o700)
        client.mount()
        client.awayfs(*at(client, "import", file))
        client.sync()
        assert read(f"{client.server.root}/z/x/f0") == "mine\n"


def test_archives_that_are_refused(tmp_path: object) -> None:
    with offline("dir", str(tmp_path)) as client:
        write(client.path("single"), "mine\n")
        good = export(client, f"{tmp_path}/good.tar")
        line = client.fails("journal", "export", good, "--mount", client.mountpoint)
        assert "exists" in line
        assert "inside" in client.fails(*at(client, "export", client.path("x.tar")))
        assert ".tar" in client.fails(*at(client, "export", f"{tmp_path}/x.zip"))
        client.awayfs("discard", client.mountpoint, "--all")
        for name, why in _bad_archives(good, str(tmp_path)).items():
            line = client.fails(*at(client, "import", f"{tmp_path}/{name}"))
            assert why in line, (name, line)
            assert records(client) == [], name
        write(client.path("single"), "other work\n")
        assert "unsent changes of its own" in client.fails(*at(client, "import", good))
        assert read(client.path("single")) == "other work\n"


def _bad_archives(good: str, place: str) -> dict[str, str]:
    """Archives by name, and a word of why each is refused."""
    with tarfile.open(good) as archive:
        members = [(m, archive.extractfile(m)) for m in archive.getmembers()]
        content = [(m, f.read() if f is not None else b"") for m, f in members]
    manifest = json.loads({m.name: c for m, c in content}["manifest.json"])

    def rebuilt(name: str, extra: tarfile.TarInfo | None = None, **fields: Any) -> None:
        with tarfile.open(f"{place}/{name}", "w") as archive:
            for member, data in content:
                if member.name == "manifest.json" and fields:
                    data = json.dumps({**manifest, **fields}).encode()
                    member = tarfile.TarInfo(member.name)
                    member.size = len(data)
                if extra is not None and member.name.startswith("files/"):
                    archive.addfile(extra, io.BytesIO(b"x" * extra.size))
                archive.addfile(member, io.BytesIO(data))

    def member(name: str, kind: bytes = tarfile.REGTYPE, target: str = "", size: int = 0) -> Any:
        info = tarfile.TarInfo(name)
        info.type, info.linkname, info.size = kind, target, size
        return info

    def nodes(**facts: Any) -> list[Any]:
        return [{**manifest["nodes"][0], **facts}, *manifest["nodes"][1:]]

    rebuilt("absolute.tar", member("/etc/evil", size=1))
    rebuilt("climbs.tar", member("files/../../evil", size=1))
    rebuilt("hardlink.tar", member("files/h", tarfile.LNKTYPE, "/etc/passwd"))
    rebuilt("device.tar", member("files/d", tarfile.CHRTYPE))
    rebuilt("unknown.tar", member("files/unknown", size=1))
    rebuilt("huge.tar", nodes=nodes(size=1 << 50, ranges=[[0, 1 << 50]]))
    rebuilt("path.tar", nodes=nodes(path="Li4vZXZpbA=="))
    rebuilt("volume.tar", volume={**manifest["volume"], "identity": "00", "url": "dir:/other"})
    rebuilt("format.tar", format=99)
    with open(good, "rb") as file:
        data = file.read()
    for name, part in (
        ("short.tar", data[: len(data) // 2]),
        ("text.tar", b"hello"),
        ("0.tar", b""),
    ):
        with open(f"{place}/{name}", "wb") as file:
            file.write(part)
    with open(f"{place}/cut.tar.gz", "wb") as file:
        file.write(gzip.compress(data)[:-400])
    position = data.rindex(b"mine\n")
    with open(f"{place}/flipped.tar", "wb") as file:
        file.write(data[:position] + b"MINE\n" + data[position + 5 :])
    return {
        "absolute.tar": "absolute",
        "climbs.tar": "leads out",
        "hardlink.tar": "does not belong",
        "device.tar": "does not belong",
        "unknown.tar": "does not know",
        "huge.tar": "no room",
        "path.tar": "leads out",
        "volume.tar": "another volume",
        "format.tar": "format 99",
        "short.tar": "",
        "text.tar": "",
        "0.tar": "",
        "cut.tar.gz": "",
        "flipped.tar": "is damaged",
        "missing.tar": "No such file",
    }


def test_an_export_to_a_full_disk_leaves_nothing(tmp_path: object) -> None:
    small = f"{tmp_path}/small"
    os.mkdir(small)
    mounting = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "none", small], capture_output=True, check=False
    )
    if mounting.returncode:
        pytest.skip("mounting a small tmpfs needs root")
    try:
        with offline("dir", str(tmp_path)) as client:
            with open(client.path("large"), "wb") as file:
                file.write(os.urandom(200_000))
            line = client.fails(
                "journal", "export", f"{small}/work.tar", "--mount", client.mountpoint
            )
            assert "No space left" in line
            assert os.listdir(small) == []
    finally:
        subprocess.run(["umount", small], check=True)


# --- the state -------------------------------------------------------------------------------


def test_fsck_of_a_volume(tmp_path: object) -> None:
    with mounted("dir", str(tmp_path)) as client:
        write(client.path("file"), "content\n")
        client.sync()
        assert "mounted" in client.fails("fsck", client.server.url)
        client.umount()
        assert "0 found" in client.awayfs("fsck", client.server.url)
        (volume,) = os.listdir(f"{client.state}/awayfs/volumes")
        content = f"{client.state}/awayfs/volumes/{volume}/content"
        (found,) = [os.path.join(d, n) for d, _, names in os.walk(content) for n in names]
        os.unlink(found)
        said = client.awayfs("fsck", volume, check=False)
        assert said.startswith("wrong: the content file of node") and "1 found" in said
        answer = json.loads(client.awayfs("fsck", volume, "--repair", "--json"))
        assert [p["repaired"] for p in answer["problems"]] == [True]
        assert "0 found" in client.awayfs("fsck", volume)
        client.mount()
        assert read(client.path("file")) == "content\n"


def test_cull_evicts_what_is_clean_and_not_pinned(tmp_path: object) -> None:
    with mounted("dir", str(tmp_path)) as client:
        for name in ("clean", "pinned", "edited"):
            write(f"{client.server.root}/{name}", "x" * 10_000)
        client.awayfs("pin", client.path("pinned"))
        for name in ("clean", "edited"):
            assert read(client.path(name)) == "x" * 10_000
        client.offline()
        write(client.path("edited"), "mine\n")
        answer = json.loads(client.awayfs("cull", client.mountpoint, "--json"))
        assert (answer["evicted_files"], answer["evicted_bytes"]) == (1, 10_000)
        state = {
            name: os.getxattr(client.path(name), "user.awayfs.state").decode()
            for name in ("clean", "pinned", "edited")
        }
        assert state == {"clean": "placeholder", "pinned": "clean", "edited": "dirty"}
