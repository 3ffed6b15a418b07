"""Changing a server: each mutation, and each of its preconditions gone wrong."""

from __future__ import annotations

import errno
import os
import stat

import pytest
from case import Case, cache_file, refused

from awayfs.core.errors import NotFound, Refused, RemoteError
from awayfs.core.types import ABSENT, Attributes, Committed, Expected, Kind, Mismatch

OLD = 1_600_000_000 * 10**9


def test_stage_sets_attributes_and_stays_hidden(run):
    async def body(case: Case) -> None:
        entry = await case.stage("op1", b"data", attributes=Attributes(mode=0o604, mtime_ns=OLD))
        assert (entry.kind, entry.size, entry.mtime_ns) == (Kind.FILE, 4, OLD)
        if case.connected.capabilities.mode:
            assert entry.mode == 0o604
        assert case.read(b".awayfs-op1.new") == b"data"
        assert await case.remote.list(b"") == []
        again = await case.stage("op1", b"other data")
        assert again.size == 10
        assert case.read(b".awayfs-op1.new") == b"other data"
        await case.remote.discard_staged("op1", b"")
        await case.remote.discard_staged("op1", b"")
        assert case.names() == set()

    run(body)


def test_stage_needs_its_directory(run):
    async def body(case: Case) -> None:
        with pytest.raises(NotFound):
            await case.stage("op1", b"data", b"gone")
        await case.remote.discard_staged("op1", b"gone")

    run(body)


def test_stage_does_not_touch_a_second_name_of_what_was_staged(run):
    async def body(case: Case) -> None:
        await case.stage("op1", b"first")
        os.link(case.at(b".awayfs-op1.new"), case.at(b"public"))
        await case.stage("op1", b"second")
        assert case.read(b"public") == b"first"

    run(body)


@pytest.mark.parametrize("data", [b"", b"x", b"y" * 100_000])
def test_create(run, data):
    async def body(case: Case) -> None:
        entry = await case.create("op1", b"file", data)
        assert entry.name == b"file"
        assert entry.size == len(data)
        assert entry.token == (await case.remote.stat(b"file")).token
        assert case.contents() == {b"file": data}

    run(body)


def test_create_over_something_is_a_mismatch(run):
    async def body(case: Case) -> None:
        case.write(b"file", b"theirs")
        current = refused(await case.save("op1", b"file", b"ours", ABSENT))
        assert current is not None
        assert current.token == (await case.remote.stat(b"file")).token
        assert case.contents() == {b"file": b"theirs", **case.refused("op1", b"ours")}

    run(body)


def test_replace_the_expected_revision(run):
    async def body(case: Case) -> None:
        case.write(b"file", b"before")
        outcome = await case.save("op1", b"file", b"after", await case.expected(b"file"))
        assert isinstance(outcome, Committed)
        assert outcome.entry is not None
        assert outcome.entry.token == (await case.remote.stat(b"file")).token
        assert case.contents() == {b"file": b"after"}

    run(body)


def test_replace_again_and_again_with_the_token_it_answered(run):
    async def body(case: Case) -> None:
        entry = await case.create("op0", b"file", b"0")
        for number in range(1, 20):
            expected = Expected(entry.token, entry.file_id, entry.kind)
            outcome = await case.save(f"op{number}", b"file", b"%d" % number, expected)
            assert isinstance(outcome, Committed)
            assert outcome.entry is not None
            entry = outcome.entry
        assert case.contents() == {b"file": b"19"}

    run(body)


def test_replace_of_another_revision_is_a_mismatch(run):
    async def body(case: Case) -> None:
        case.write(b"file", b"before")
        expected = await case.expected(b"file")
        case.write(b"file", b"theirs, longer")
        current = refused(await case.save("op1", b"file", b"ours", expected))
        assert current is not None
        assert current.token == (await case.remote.stat(b"file")).token
        assert case.contents() == {b"file": b"theirs, longer", **case.refused("op1", b"ours")}

    run(body)


def test_replace_of_what_is_gone_is_a_mismatch(run):
    async def body(case: Case) -> None:
        case.write(b"file", b"before")
        expected = await case.expected(b"file")
        os.unlink(case.at(b"file"))
        assert refused(await case.save("op1", b"file", b"ours", expected)) is None
        assert case.contents() == case.refused("op1", b"ours")

    run(body)


def test_replace_without_anything_staged(run):
    async def body(case: Case) -> None:
        case.write(b"file", b"theirs")
        with pytest.raises(RemoteError):
            await case.remote.replace("op1", b"file", await case.expected(b"file"))
        assert case.contents() == {b"file": b"theirs"}

    run(body)


def test_replace_does_not_touch_directories(run):
    async def body(case: Case) -> None:
        os.mkdir(case.at(b"dir"))
        case.write(b"dir/file", b"")
        expected = await case.expected(b"dir")
        await case.stage("op1", b"ours")
        with pytest.raises(Refused):
            outcome = await case.remote.replace("op1", b"dir", expected)
            assert isinstance(outcome, Mismatch)
            raise Refused(errno.EISDIR)
        assert case.names(b"dir") == {b"file"}

    run(body)


def test_replace_carries_xattrs_over(run):
    async def body(case: Case) -> None:
        case.needs("xattrs")
        case.write(b"file", b"before")
        os.setxattr(case.at(b"file"), b"user.note", b"kept")
        os.chown(case.at(b"file"), 1234, 2345)
        os.chmod(case.at(b"file"), 0o777)
        await case.stage("op1", b"after", attributes=Attributes(mode=0o640, mtime_ns=OLD))
        await case.remote.replace("op1", b"file", await case.expected(b"file"))
        assert os.getxattr(case.at(b"file"), b"user.note") == b"kept"
        after = os.stat(case.at(b"file"))
        assert stat.S_IMODE(after.st_mode) == 0o640
        assert after.st_mtime_ns == OLD
        if case.connected.capabilities.owner:
            assert (after.st_uid, after.st_gid) == (1234, 2345)

    run(body)


KINDS = [Kind.DIRECTORY, Kind.SYMLINK, Kind.FIFO, Kind.SOCKET, Kind.CHARACTER, Kind.BLOCK]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name.lower())
def test_make(run, kind):
    async def body(case: Case) -> None:
        if kind is Kind.SYMLINK:
            case.needs("symlinks")
        elif kind is not Kind.DIRECTORY:
            case.needs("special_files")
        target = b"to \xff nowhere" if kind is Kind.SYMLINK else b""
        rdev = os.makedev(1, 5) if kind in (Kind.CHARACTER, Kind.BLOCK) else 0
        outcome = await case.remote.make(
            "op1", b"made", kind, Attributes(mode=0o750, mtime_ns=OLD), target, rdev
        )
        assert isinstance(outcome, Committed)
        assert outcome.entry is not None
        made = os.lstat(case.at(b"made"))
        assert stat.S_IFMT(made.st_mode) == kind
        assert made.st_rdev == rdev
        if kind is Kind.SYMLINK:
            assert os.readlink(case.at(b"made")) == target
            assert outcome.entry.target == target
        else:
            assert stat.S_IMODE(made.st_mode) == 0o750
        assert case.names() == {b"made"}
        again = await case.remote.make("op2", b"made", kind, Attributes(), target, rdev)
        current = refused(again)
        assert current is not None
        assert current.kind is kind
        with pytest.raises(NotFound):
            await case.remote.make("op3", b"gone/made", kind, Attributes(), target, rdev)

    run(body)


def test_link(run):
    async def body(case: Case) -> None:
        case.needs("hard_links")
        case.write(b"file", b"data")
        case.write(b"taken", b"theirs")
        outcome = await case.remote.link("op1", b"file", b"second")
        assert isinstance(outcome, Committed)
        assert os.path.samefile(case.at(b"file"), case.at(b"second"))
        assert refused(await case.remote.link("op2", b"file", b"taken")) is not None
        assert case.read(b"taken") == b"theirs"
        with pytest.raises(NotFound):
            await case.remote.link("op3", b"gone", b"third")

    run(body)


def test_remove_a_file(run):
    async def body(case: Case) -> None:
        case.write(b"file", b"data")
        expected = await case.expected(b"file")
        assert await case.remote.remove("op1", b"file", expected) == Committed(None)
        assert case.names() == set()
        assert await case.remote.remove("op2", b"file", expected) == Mismatch(None)

    run(body)


def test_remove_another_revision_is_a_mismatch(run):
    async def body(case: Case) -> None:
        case.write(b"file", b"data")
        expected = await case.expected(b"file")
        case.write(b"file", b"theirs!")
        current = refused(await case.remote.remove("op1", b"file", expected))
        assert current is not None
        assert current.token == (await case.remote.stat(b"file")).token
        assert case.contents() == {b"file": b"theirs!"}

    run(body)


def test_remove_a_symlink_leaves_what_it_points_to(run):
    async def body(case: Case) -> None:
        case.write(b"file", b"data")
        os.symlink(b"file", case.at(b"link"))
        await case.remote.remove("op1", b"link", await case.expected(b"link"))
        assert case.contents() == {b"file": b"data"}

    run(body)


def test_remove_a_directory(run):
    async def body(case: Case) -> None:
        os.makedirs(case.at(b"dir/inner"))
        expected = await case.expected(b"dir", content=False)
        with pytest.raises(Refused) as full:
            await case.remote.remove("op1", b"dir", expected)
        assert full.value.errno == errno.ENOTEMPTY
        await case.remote.remove("op2", b"dir/inner", await case.expected(b"dir/inner"))
        assert await case.remote.remove("op3", b"dir", expected) == Committed(None)
        assert case.names() == set()

    run(body)


def test_remove_of_another_kind_is_a_mismatch(run):
    async def body(case: Case) -> None:
        case.write(b"thing", b"data")
        expected = await case.expected(b"thing", content=False)
        os.unlink(case.at(b"thing"))
        os.mkdir(case.at(b"thing"))
        assert refused(await case.remote.remove("op1", b"thing", expected)) is not None
        assert case.names() == {b"thing"}

    run(body)


@pytest.mark.parametrize("what", ["file", "directory", "symlink"])
def test_rename_to_a_free_name(run, what):
    async def body(case: Case) -> None:
        _put(case, b"a", what)
        os.mkdir(case.at(b"dir"))
        expected = await case.expected(b"a", content=False)
        outcome = await case.remote.rename("op1", b"a", b"dir/b", expected, ABSENT)
        assert isinstance(outcome, Committed)
        assert outcome.entry is not None
        assert outcome.entry.name == b"b"
        assert outcome.entry.token == (await case.remote.stat(b"dir/b")).token
        assert case.names() == {b"dir"}
        assert case.names(b"dir") == {b"b"}

    run(body)


def _put(case: Case, name: bytes, what: str) -> None:
    if what == "file":
        case.write(name, b"data of " + name)
    elif what == "directory":
        os.mkdir(case.at(name))
        case.write(name + b"/inside", name)
    else:
        os.symlink(name, case.at(name))


def test_rename_to_a_taken_name_is_a_mismatch(run):
    async def body(case: Case) -> None:
        case.write(b"a", b"a")
        case.write(b"b", b"theirs")
        expected = await case.expected(b"a")
        current = refused(await case.remote.rename("op1", b"a", b"b", expected, ABSENT))
        assert current is not None
        assert current.token == (await case.remote.stat(b"b")).token
        assert case.contents() == {b"a": b"a", b"b": b"theirs"}

    run(body)


def test_rename_over_the_expected_revision(run):
    async def body(case: Case) -> None:
        case.write(b"a", b"a")
        os.mkdir(case.at(b"dir"))
        case.write(b"dir/b", b"b")
        outcome = await case.remote.rename(
            "op1", b"a", b"dir/b", await case.expected(b"a"), await case.expected(b"dir/b")
        )
        assert isinstance(outcome, Committed)
        assert outcome.entry is not None
        assert outcome.entry.token == (await case.remote.stat(b"dir/b")).token
        assert case.names() == {b"dir"}
        assert case.contents(b"dir") == {b"b": b"a"}

    run(body)


def test_rename_over_another_revision_is_a_mismatch(run):
    async def body(case: Case) -> None:
        case.write(b"a", b"a")
        case.write(b"b", b"b")
        source, target = await case.expected(b"a"), await case.expected(b"b")
        case.write(b"b", b"theirs")
        current = refused(await case.remote.rename("op1", b"a", b"b", source, target))
        assert current is not None
        assert current.token == (await case.remote.stat(b"b")).token
        assert case.contents() == {b"a": b"a", b"b": b"theirs"}
        os.unlink(case.at(b"b"))
        assert refused(await case.remote.rename("op2", b"a", b"b", source, target)) is None
        assert case.contents() == {b"a": b"a"}

    run(body)


def test_rename_of_another_source_is_not_found(run):
    async def body(case: Case) -> None:
        case.write(b"a", b"a")
        expected = await case.expected(b"a")
        case.write(b"a", b"theirs")
        with pytest.raises(NotFound):
            await case.remote.rename("op1", b"a", b"b", expected, ABSENT)
        assert case.contents() == {b"a": b"theirs"}
        os.unlink(case.at(b"a"))
        with pytest.raises(NotFound):
            await case.remote.rename("op2", b"a", b"b", expected, ABSENT)
        with pytest.raises(NotFound):
            await case.remote.rename("op3", b"gone/a", b"b", expected, ABSENT)
        assert case.names() == set()

    run(body)


def test_rename_a_directory_over_another(run):
    async def body(case: Case) -> None:
        _put(case, b"a", "directory")
        os.mkdir(case.at(b"b"))
        source = await case.expected(b"a", content=False)
        target = await case.expected(b"b", content=False)
        case.write(b"b/in the way", b"")
        with pytest.raises(Refused) as full:
            await case.remote.rename("op1", b"a", b"b", source, target)
        assert full.value.errno == errno.ENOTEMPTY
        assert case.names() == {b"a", b"b"}
        assert case.names(b"b") == {b"in the way"}
        os.unlink(case.at(b"b/in the way"))
        assert isinstance(await case.remote.rename("op2", b"a", b"b", source, target), Committed)
        assert case.names() == {b"b"}
        assert case.names(b"b") == {b"inside"}

    run(body)


def test_rename_into_itself_is_refused(run):
    async def body(case: Case) -> None:
        _put(case, b"a", "directory")
        with pytest.raises(Refused):
            await case.remote.rename(
                "op1", b"a", b"a/b", await case.expected(b"a", content=False), ABSENT
            )
        assert case.names() == {b"a"}
        assert case.names(b"a") == {b"inside"}

    run(body)


def test_exchange(run):
    async def body(case: Case) -> None:
        case.needs("exchange")
        case.write(b"a", b"a")
        _put(case, b"d", "directory")
        a, d = await case.expected(b"a"), await case.expected(b"d", content=False)
        outcome = await case.remote.exchange("op1", b"a", b"d", a, d)
        assert isinstance(outcome, Committed) and outcome.entry is not None
        assert (outcome.entry.name, outcome.entry.kind) == (b"d", a.kind)
        assert case.read(b"d") == b"a"
        assert case.names(b"a") == {b"inside"}
        case.write(b"d", b"theirs")
        assert isinstance(await case.remote.exchange("op2", b"d", b"a", a, d), Mismatch)
        assert case.read(b"d") == b"theirs"
        os.unlink(case.at(b"d"))
        assert await case.remote.exchange("op3", b"a", b"d", d, a) == Mismatch(None)

    run(body)


def test_set_attributes(run):
    async def body(case: Case) -> None:
        case.write(b"file", b"data")
        expected = await case.expected(b"file")
        outcome = await case.remote.set_attributes(
            b"file", Attributes(mode=0o600, mtime_ns=OLD), expected
        )
        assert isinstance(outcome, Committed)
        assert outcome.entry is not None
        assert outcome.entry.token == (await case.remote.stat(b"file")).token
        after = os.stat(case.at(b"file"))
        assert (stat.S_IMODE(after.st_mode), after.st_mtime_ns) == (0o600, OLD)
        case.write(b"file", b"theirs, by now")
        later = await case.remote.set_attributes(b"file", Attributes(mode=0o777), expected)
        assert isinstance(later, Mismatch)
        assert stat.S_IMODE(os.stat(case.at(b"file")).st_mode) != 0o777
        os.unlink(case.at(b"file"))
        gone = await case.remote.set_attributes(b"file", Attributes(mode=0o777), expected)
        assert gone == Mismatch(None)

    run(body)


def test_set_attributes_of_the_symlink_itself(run):
    async def body(case: Case) -> None:
        case.needs("symlinks")
        if case.connected.capabilities.guard.value != "swap":
            pytest.skip("not every protocol reaches the symlink itself")
        case.write(b"file", b"data")
        os.chmod(case.at(b"file"), 0o600)
        os.symlink(b"file", case.at(b"link"))
        outcome = await case.remote.set_attributes(
            b"link",
            Attributes(mode=0o777, uid=77, gid=88, mtime_ns=OLD),
            await case.expected(b"link"),
        )
        assert isinstance(outcome, Committed)
        link, file = os.lstat(case.at(b"link")), os.stat(case.at(b"file"))
        assert (link.st_uid, link.st_gid, link.st_mtime_ns) == (77, 88, OLD)
        assert stat.S_IMODE(file.st_mode) == 0o600
        assert file.st_uid != 77

    run(body)


def test_set_user_id_survives_a_change_of_owner(run):
    async def body(case: Case) -> None:
        case.needs("owner")
        case.write(b"file", b"data")
        await case.remote.set_attributes(
            b"file", Attributes(mode=0o4755, uid=77, gid=88), await case.expected(b"file")
        )
        assert stat.S_IMODE(os.stat(case.at(b"file")).st_mode) == 0o4755

    run(body)


def test_the_root_cannot_be_removed_or_renamed(run):
    async def body(case: Case) -> None:
        expected = await case.expected(b"", content=False)
        with pytest.raises(RemoteError):
            await case.remote.remove("op1", b"", expected)
        with pytest.raises(RemoteError):
            await case.remote.rename("op2", b"", b"x", expected, ABSENT)
        assert os.path.isdir(case.root)

    run(body)


def test_names_longer_than_the_server_takes(run):
    async def body(case: Case) -> None:
        with pytest.raises(RemoteError), cache_file(b"x") as fd:
            await case.remote.stage("op1", b"", fd, 1, Attributes())
            await case.remote.replace("op1", b"x" * 256, ABSENT)

    run(body)
