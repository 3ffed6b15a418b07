"""What guarded SFTP operations do when another writer comes in between, or when they are cut.

The other writer acts at the named points between two steps. The races of the conformance
suite show that nothing is lost; here it is shown where everything ends up.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import shutil
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from types import SimpleNamespace

import pytest

from awayfs.core.errors import NotFound, Refused
from awayfs.core.types import (
    ABSENT,
    Attributes,
    Committed,
    Entry,
    Expected,
    Kind,
    Mismatch,
    Outcome,
)
from awayfs.ports.remote import Intent
from awayfs.remotes import faults, sftp_guard
from awayfs.remotes.names import is_own
from awayfs.remotes.sftp import SftpRemote
from awayfs.volume.op_ids import move_op
from awayfs.volume.strays import Strays

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from sshd import Sshd, needs_sshd, serving

pytestmark = needs_sshd

PLAIN = "hardlink,posix-rename,fsync,lsetstat,statvfs,limits,copy-data"
CLIENT = "testclient"
LONG_AGO = 1_600_000_000


@dataclass(frozen=True)
class Url:
    """As ``opening.VolumeUrl``."""

    path: bytes
    user: str | None = None
    port: int | None = None
    host: str = "127.0.0.1"


@dataclass
class Place:
    """A connected remote, and its root for the other writer."""

    remote: SftpRemote
    root: bytes

    def write(self, name: bytes, content: bytes, age: float = LONG_AGO) -> None:
        """Another writer saves a file by rename; ``age`` is its mtime, old for strong tokens."""
        beside = self.root + b"/other"
        with open(beside, "wb") as file:
            file.write(content)
        os.utime(beside, (age, age))
        os.rename(beside, self.root + b"/" + name)

    def tree(self) -> dict[bytes, bytes]:
        """All files with their content."""
        found = {}
        for directory, _, names in os.walk(self.root):
            for name in names:
                path = os.path.join(directory, name)
                with open(path, "rb") as file:
                    found[os.path.relpath(path, self.root)] = file.read()
        return found

    async def there(self, path: bytes, content: bool = True) -> Expected:
        entry = await self.remote.stat(path)
        return Expected(entry.token, entry.file_id, entry.kind, content)

    async def find(self, path: bytes) -> Entry | None:
        try:
            return await self.remote.stat(path)
        except NotFound:
            return None

    async def stage(self, op: str, content: bytes, directory: bytes = b"") -> None:
        fd = os.memfd_create("x")
        try:
            os.pwrite(fd, content, 0)
            times = Attributes(mode=0o600, mtime_ns=(LONG_AGO + 9) * 10**9)
            await self.remote.stage(op, directory, fd, len(content), times)
        finally:
            os.close(fd)


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Sshd]]:
    base = str(tmp_path_factory.mktemp("sshd"))
    with (
        serving(base + "/openssh", sftp_only=True) as openssh,
        serving(base + "/plain", sftp_arguments=f"-P {PLAIN}") as plain,
    ):
        yield {"openssh": openssh, "proven": openssh, "plain": plain}


@pytest.fixture
def run(servers: dict[str, Sshd], tmp_path: os.PathLike[str]):
    def run_body(body: Callable[[Place], Awaitable[None]], kind: str = "openssh") -> None:
        root = os.fsencode(tmp_path) + b"/root"
        os.mkdir(root)

        async def whole() -> None:
            server = servers[kind]
            remote = SftpRemote(Url(root, server.user, server.port), server.options)
            try:
                await remote.connect()
                place = Place(remote, root)
                if kind == "proven":
                    await prove(place)
                await body(place)
            finally:
                faults.disarm()
                await remote.close()

        asyncio.run(whole())

    return run_body


@pytest.fixture
def at(monkeypatch: pytest.MonkeyPatch) -> Callable[[str, Callable[[], None]], None]:
    """``at(point, act)``: the other writer acts once at a named point."""

    def arrange(point: str, act: Callable[[], None]) -> None:
        done = False

        def reach(name: str) -> None:
            nonlocal done
            if name == point and not done:
                done = True
                act()

        monkeypatch.setattr(sftp_guard, "reach", reach)

    return arrange


KINDS = ("openssh", "proven", "plain")
"""OpenSSH, the same in a session that knows its RENAME, and a server with nothing but the draft."""


async def prove(place: Place) -> None:
    """A first creation shows what RENAME does here."""
    await place.stage("first", b"x")
    assert isinstance(await place.remote.replace("first", b"first", ABSENT), Committed)
    assert place.remote._parts.guarded._moves._renames
    os.unlink(place.root + b"/first")
    assert place.tree() == {}


def current(outcome: Outcome) -> bytes | None:
    assert isinstance(outcome, Mismatch), outcome
    return outcome.current.name if outcome.current else None


# Another writer comes in between


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("point", ["replace.checked"])
def test_changed_before_the_move(run, at, kind, point):
    async def body(place: Place) -> None:
        place.write(b"f", b"old")
        expected = await place.there(b"f")
        await place.stage("op", b"ours")
        at(point, lambda: place.write(b"f", b"theirs", LONG_AGO + 5))
        assert current(await place.remote.replace("op", b"f", expected)) == b"f"
        assert place.tree() == {b"f": b"theirs", b".awayfs-op.new": b"ours"}

    run(body, kind)


@pytest.mark.parametrize("kind", KINDS)
def test_name_taken_while_aside(run, at, kind):
    async def body(place: Place) -> None:
        place.write(b"f", b"old")
        expected = await place.there(b"f")
        await place.stage("op", b"ours")
        at("over.taken", lambda: place.write(b"f", b"theirs"))
        assert current(await place.remote.replace("op", b"f", expected)) == b"f"
        assert place.tree() == {b"f": b"theirs", b".awayfs-op.new": b"ours"}

    run(body, kind)


def test_changed_and_name_taken(run, at):
    """A revision that is not ours to destroy, and whose name is taken, gets another name."""

    async def body(place: Place) -> None:
        place.write(b"f.txt", b"old")
        expected = await place.there(b"f.txt")
        await place.stage("op", b"ours")
        acts = iter(
            [
                ("replace.checked", lambda: place.write(b"f.txt", b"second", LONG_AGO + 1)),
                ("over.taken", lambda: place.write(b"f.txt", b"third", LONG_AGO + 2)),
            ]
        )
        step = [next(acts)]

        def reach(name: str) -> None:
            if step and name == step[0][0]:
                step[0][1]()
                step[:] = list(acts)[:1]

        sftp_guard_reach, sftp_guard.reach = sftp_guard.reach, reach
        try:
            assert current(await place.remote.replace("op", b"f.txt", expected)) == b"f.txt"
        finally:
            sftp_guard.reach = sftp_guard_reach
        assert place.tree() == {
            b"f.txt": b"third",
            b"f (conflict op).txt": b"second",
            b".awayfs-op.new": b"ours",
        }

    run(body)


def test_written_into_after_the_look(run, at):
    """A writer that had the replaced file open: what it wrote is kept."""

    async def body(place: Place) -> None:
        place.write(b"f", b"old")
        expected = await place.there(b"f")
        await place.stage("op", b"ours")
        held = os.open(place.root + b"/f", os.O_WRONLY)
        at("over.placed", lambda: os.pwrite(held, b"late writing", 0) and None)
        assert isinstance(await place.remote.replace("op", b"f", expected), Committed)
        os.close(held)
        assert place.tree() == {b"f": b"ours", b"f (conflict op)": b"late writing"}

    run(body)


@pytest.mark.parametrize("kind", KINDS)
def test_same_second_same_size(run, at, kind):
    """The token cannot tell; the content does."""

    async def body(place: Place) -> None:
        now = time.time()
        place.write(b"f", b"old", now)
        expected = await place.there(b"f")
        assert (await place.remote.digest(b"f")).entry.token == expected.token
        await place.stage("op", b"new")
        at("replace.checked", lambda: place.write(b"f", b"THE", now))
        assert current(await place.remote.replace("op", b"f", expected)) == b"f"
        assert place.tree() == {b"f": b"THE", b".awayfs-op.new": b"new"}

    run(body, kind)


def test_edited_between_the_callers_digest_and_the_call(run):
    async def body(place: Place) -> None:
        now = time.time()
        place.write(b"f", b"old", now)
        expected = await place.there(b"f")
        await place.remote.digest(b"f")
        place.write(b"f", b"THE", now)
        await place.stage("op", b"new")
        # the digest that the caller went by is not what stands there any more
        assert current(await place.remote.replace("op", b"f", expected)) == b"f"
        assert current(await place.remote.remove("op2", b"f", expected)) == b"f"
        assert place.tree() == {b"f": b"THE", b".awayfs-op.new": b"new"}

    run(body)


@pytest.mark.parametrize("kind", KINDS)
def test_remove_of_what_changed(run, at, kind):
    async def body(place: Place) -> None:
        place.write(b"f", b"old")
        expected = await place.there(b"f")
        at("remove.checked", lambda: place.write(b"f", b"theirs", LONG_AGO + 5))
        assert current(await place.remote.remove("op", b"f", expected)) == b"f"
        assert place.tree() == {b"f": b"theirs"}
        assert isinstance(await place.remote.remove("op", b"f", await place.there(b"f")), Committed)
        assert place.tree() == {}

    run(body, kind)


def test_remove_while_recreated(run, at):
    async def body(place: Place) -> None:
        place.write(b"f", b"old")
        expected = await place.there(b"f")
        at("drop.taken", lambda: place.write(b"f", b"theirs"))
        assert isinstance(await place.remote.remove("op", b"f", expected), Committed)
        assert place.tree() == {b"f": b"theirs"}

    run(body)


# Renames


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("target", [b"g", b"d/g"])
def test_rename(run, kind, target):
    async def body(place: Place) -> None:
        os.mkdir(place.root + b"/d")
        place.write(b"f", b"one")
        there = await place.there(b"f")
        moved = await place.remote.rename("o1", b"f", target, there, ABSENT)
        assert isinstance(moved, Committed) and moved.entry is not None
        assert moved.entry.token == there.token and place.tree() == {target: b"one"}
        place.write(b"f", b"two", LONG_AGO + 1)
        two = await place.there(b"f")
        assert current(await place.remote.rename("o2", b"f", target, two, ABSENT)) == b"g"
        assert isinstance(await place.remote.rename("o3", b"f", target, two, there), Committed)
        assert place.tree() == {target: b"two"}
        with pytest.raises(NotFound):
            await place.remote.rename("o4", b"f", target, two, two)
        with pytest.raises(NotFound):
            await place.remote.rename("o5", target, b"f", there, ABSENT)

    run(body, kind)


@pytest.mark.parametrize("kind", KINDS)
def test_rename_of_a_source_that_changed(run, at, kind):
    async def body(place: Place) -> None:
        place.write(b"f", b"one")
        place.write(b"g", b"target")
        f, g = await place.there(b"f"), await place.there(b"g")
        at("rename.checked", lambda: place.write(b"f", b"theirs", LONG_AGO + 5))
        with pytest.raises(NotFound):
            await place.remote.rename("op", b"f", b"g", f, g)
        assert place.tree() == {b"f": b"theirs", b"g": b"target"}

    run(body, kind)


def test_rename_when_the_old_name_gets_a_new_revision(run, at):
    async def body(place: Place) -> None:
        place.write(b"f", b"one")
        f = await place.there(b"f")
        at("over.placed", lambda: place.write(b"f", b"theirs", LONG_AGO + 5))
        assert isinstance(await place.remote.rename("op", b"f", b"g", f, ABSENT), Committed)
        assert place.tree() == {b"f": b"theirs", b"g": b"one"}

    run(body)


@pytest.mark.parametrize("kind", KINDS)
def test_directories(run, kind):
    async def body(place: Place) -> None:
        remote = place.remote
        for name in (b"a", b"b", b"full"):
            os.mkdir(place.root + b"/" + name)
        place.write(b"a/f", b"")
        place.write(b"full/f", b"")
        place.write(b"file", b"")
        a = await place.there(b"a", content=False)
        full = await place.there(b"full", content=False)
        file = await place.there(b"file")
        with pytest.raises(Refused) as error:
            await remote.remove("o1", b"a", a)
        assert error.value.errno == errno.ENOTEMPTY
        with pytest.raises(Refused) as error:
            await remote.rename("o3", b"a", b"file", a, file)
        assert error.value.errno == errno.ENOTDIR
        with pytest.raises(Refused) as error:
            await remote.rename("o4", b"file", b"a", file, a)
        assert error.value.errno == errno.EISDIR
        with pytest.raises(Refused) as error:
            await remote.rename("o5", b"a", b"a/below", a, ABSENT)
        assert error.value.errno == errno.EINVAL
        assert current(await remote.rename("o6", b"a", b"full", a, ABSENT)) == b"full"
        assert isinstance(await remote.rename("o8", b"a", b"new", a, ABSENT), Committed)
        if kind != "plain":
            with pytest.raises(Refused) as error:
                await remote.rename("o2", b"new", b"full", a, full)
            assert error.value.errno == errno.ENOTEMPTY
            b = await place.there(b"b", content=False)
            assert isinstance(await remote.rename("o7", b"new", b"b", a, b), Committed)
        os.mkdir(place.root + b"/empty")
        empty = await place.there(b"empty", content=False)
        assert isinstance(await remote.remove("o9", b"empty", empty), Committed)

    run(body, kind)


def test_symlinks_are_guarded_alike(run):
    async def body(place: Place) -> None:
        os.symlink(b"nowhere", place.root + b"/l")
        link = await place.there(b"l")
        os.unlink(place.root + b"/l")
        os.symlink(b"elsewhe", place.root + b"/l")
        assert current(await place.remote.remove("o1", b"l", link)) == b"l"
        link = await place.there(b"l")
        assert isinstance(await place.remote.rename("o2", b"l", b"m", link, ABSENT), Committed)
        assert os.readlink(place.root + b"/m") == b"elsewhe"
        await place.stage("o3", b"file")
        assert isinstance(await place.remote.replace("o3", b"m", link), Committed)
        assert place.tree() == {b"m": b"file"}

    run(body)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give files away")
def test_the_owner_of_the_replaced_file_is_carried_over(run):
    async def body(place: Place) -> None:
        place.write(b"f", b"old")
        os.chown(place.root + b"/f", 1234, 5678)
        await place.stage("op", b"new")
        done = await place.remote.replace("op", b"f", await place.there(b"f"))
        assert isinstance(done, Committed) and done.entry is not None
        real = os.stat(place.root + b"/f")
        assert (real.st_uid, real.st_gid, real.st_mode & 0o7777) == (1234, 5678, 0o600)
        assert (done.entry.uid, done.entry.gid) == (1234, 5678)

    run(body)


# Cut off


Act = Callable[[Place], Awaitable[tuple[Intent, Callable[[], Awaitable[Outcome]]]]]


async def _replace(place: Place) -> tuple[Intent, Callable[[], Awaitable[Outcome]]]:
    expected = await place.there(b"f")
    await place.stage("op", b"ours")
    return Intent("op", b"f", expected), lambda: place.remote.replace("op", b"f", expected)


async def _remove(place: Place) -> tuple[Intent, Callable[[], Awaitable[Outcome]]]:
    expected = await place.there(b"f")
    return Intent("op", b"f", expected), lambda: place.remote.remove("op", b"f", expected)


async def _rename(place: Place) -> tuple[Intent, Callable[[], Awaitable[Outcome]]]:
    f, g = await place.there(b"f"), await place.there(b"d/g")
    intent = Intent("op", b"d/g", g, b"f", f)
    return intent, lambda: place.remote.rename("op", b"f", b"d/g", f, g)


ENDS = {
    "replace": (_replace, {b"f": b"old", b"d/g": b"gold"}, {b"f": b"ours", b"d/g": b"gold"}),
    "remove": (_remove, {b"f": b"old", b"d/g": b"gold"}, {b"d/g": b"gold"}),
    "rename": (_rename, {b"f": b"old", b"d/g": b"gold"}, {b"d/g": b"old"}),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ENDS)
@pytest.mark.parametrize("other", ["nobody", "takes the name"])
def test_every_cut(run, kind, name, other):
    """One of two ends, or, with another writer, both revisions under visible names."""
    act, before, after = ENDS[name]
    target = b"d/g" if name == "rename" else b"f"

    async def one(place: Place, nth: int) -> bool:
        for path in place.tree():
            os.unlink(place.root + b"/" + path)
        for path, content in before.items():
            place.write(path, content)
        intent, call = await act(place)
        faults.arm(nth)
        cut = False
        try:
            await call()
        except faults.Cut:
            cut = True
        faults.disarm()
        taken = other == "takes the name" and not os.path.exists(place.root + b"/" + target)
        if taken:
            place.write(target, b"theirs")
        await place.remote.settle(intent)
        first = place.tree()
        await place.remote.settle(intent)
        assert place.tree() == first, "settle is idempotent"
        assert not [path for path in first if b".awayfs-" in path]
        if taken and cut:
            standing = set(first.values())
            assert first[target] == b"theirs"
            assert {b"old", b"gold"} - {before[target]} <= standing
        else:
            assert first in (before, after) or taken
        return cut

    async def body(place: Place) -> None:
        os.mkdir(place.root + b"/d")
        cuts = 0
        while await one(place, cuts + 1):
            cuts += 1
        assert cuts >= 2

    run(body, kind)


def test_settle_keeps_what_it_does_not_know(run):
    async def body(place: Place) -> None:
        place.write(b"f", b"stands")
        place.write(b".awayfs-op.old", b"unknown", LONG_AGO + 7)
        expected = Expected(b"f:3:1")
        await place.remote.settle(Intent("op", b"f", expected))
        assert place.tree() == {b"f": b"stands", b"f (conflict op)": b"unknown"}

    run(body)


@pytest.mark.parametrize("name", ["proof.linked", "proof.seen"])
def test_a_cut_while_rename_is_tried_out_leaves_nothing(run, name):
    async def body(place: Place) -> None:
        await place.stage("op", b"ours")
        faults.arm(99)
        nth = 0
        while name not in faults.reached:
            nth += 1
            faults.arm(nth)
            with contextlib.suppress(faults.Cut):
                await place.remote.replace("op", b"f", ABSENT)
                raise AssertionError("never cut there")
            await place.remote.close()
            await place.remote.connect()
            if name not in faults.reached:
                await place.remote.settle(Intent("op", b"f", ABSENT))
                for path in place.tree():
                    os.unlink(place.root + b"/" + path)
                await place.stage("op", b"ours")
        faults.disarm()
        await place.remote.settle(Intent("op", b"f", ABSENT))
        assert place.tree() == {b"f": b"ours"}

    run(body)


def test_rename_is_not_tried_out_on_what_is_somebodys(run):
    """Something has the name that would be used for it: it stays, and nothing is proven."""

    async def body(place: Place) -> None:
        place.write(b".awayfs-op.old", b"theirs")
        await place.stage("op", b"ours")
        assert isinstance(await place.remote.replace("op", b"f", ABSENT), Committed)
        assert place.tree() == {b"f": b"ours", b".awayfs-op.old": b"theirs"}
        assert not place.remote._parts.guarded._moves._renames

    run(body)


def test_settle_of_nothing(run):
    async def body(place: Place) -> None:
        place.write(b"f", b"x")
        with contextlib.suppress(NotFound):
            await place.remote.settle(Intent("op", b"no/such", ABSENT))
        await place.remote.settle(Intent("op", b"f", ABSENT))
        assert place.tree() == {b"f": b"x"}

    run(body)


def test_no_sign_of_the_clock_being_asked(run):
    """Removing a young file first thing makes a file to see the server's clock by."""

    async def body(place: Place) -> None:
        place.write(b"f", b"x")
        assert not place.remote._parts.session.clock.known
        expected = await place.there(b"f")
        assert isinstance(await place.remote.remove("op", b"f", expected), Committed)
        assert place.remote._parts.session.clock.known
        assert place.tree() == {}

    run(body)


def test_nothing_staged(run):
    async def body(place: Place) -> None:
        with pytest.raises(NotFound):
            await place.remote.replace("op", b"f", ABSENT)

    run(body)


def test_kind_of_make(run):
    async def body(place: Place) -> None:
        with pytest.raises(Refused):
            await place.remote.make("op", b"f", Kind.FILE, Attributes())

    run(body)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("over", [False, True])
def test_a_cut_move_whose_directory_went_out_of_reach(run, kind, over):
    """Settling finds nothing then. Once the directory is listed, each file has a name again."""
    op = move_op(CLIENT, 7)

    async def call(operation: Callable[[SftpRemote], Awaitable[object]], place: Place) -> object:
        return await operation(place.remote)

    async def one(place: Place, nth: int) -> bool:
        for directory in (b"a", b"b"):
            os.makedirs(place.root + b"/" + directory)
        place.write(b"a/f", b"the only one")
        source, target = await place.there(b"a/f"), ABSENT
        if over:
            place.write(b"b/g", b"what it is moved over")
            target = await place.there(b"b/g")
        faults.arm(nth)
        cut = False
        try:
            await place.remote.rename(op, b"a/f", b"b/g", source, target)
        except faults.Cut:
            cut = True
        faults.disarm()
        os.rename(place.root + b"/b", place.root + b"/c")
        await place.remote.close()
        await place.remote.connect()
        await place.remote.settle(Intent(op, b"b/g", target, b"a/f", source))
        context = SimpleNamespace(
            store=SimpleNamespace(
                journal=SimpleNamespace(get=lambda _seq: None),
                server=SimpleNamespace(child=lambda *_: None),
            ),
            link=SimpleNamespace(call=lambda operation: call(operation, place), find=place.find),
        )
        shown = await Strays(context, CLIENT).listed(b"c")
        seen = {b"c/" + entry.name for entry in shown} | set(place.tree())
        names = {n for n in place.tree() if not is_own(os.path.basename(n))}
        assert names, f"cut at {faults.reached[-1]}: {place.tree()}"
        contents = {place.tree()[n] for n in names}
        assert b"the only one" in contents
        if over and place.tree().get(b"c/g") != b"the only one":
            assert b"what it is moved over" in contents, faults.reached[-1]
        assert names <= seen
        shutil.rmtree(place.root + b"/a")
        shutil.rmtree(place.root + b"/c")
        return cut

    async def body(place: Place) -> None:
        place.remote._options = {**place.remote._options, "client": CLIENT}
        await place.remote.close()
        await place.remote.connect()
        cuts = 0
        while await one(place, cuts + 1):
            cuts += 1
        assert cuts

    run(body, kind)
