"""Deciding conflicts on real mounts: a content, many at once, tools, undo."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.harness import Client, eventually, make_server, mounted, needs_fuse, run

pytestmark = needs_fuse

BASE, OURS, THEIRS = "1\n2\n3\n4\n5\n", "one\n2\n3\n4\n5\n", "1\n2\n3\n4\nfive\n"


def in_conflict(client: Client, *names: str, ours: str = OURS, theirs: str = THEIRS) -> None:
    """Files that both sides edited while apart."""
    for name in names:
        client.on_server(name).parent.mkdir(parents=True, exist_ok=True)
        client.on_server(name).write_text(BASE)
    for name in names:
        assert Path(client.path(name)).read_text() == BASE
    client.offline()
    for name in names:
        Path(client.path(name)).write_text(ours)
        client.on_server(name).write_text(theirs)
    client.online()
    client.sync(check=False)
    assert sorted(c["path"] for c in client.conflicts()) == sorted(names)


def in_step(client: Client, name: str, text: str) -> None:
    client.sync()
    assert client.conflicts() == []
    assert client.on_server(name).read_text() == text
    assert Path(client.path(name)).read_text() == text


def history(client: Client, *path: str) -> list[dict[str, object]]:
    listed = json.loads(client.awayfs("resolve", "--history", *path, "--json"))
    return list(listed["history"])


def test_a_file_decides_and_can_be_taken_back(client: Client, tmp_path: Path) -> None:
    in_conflict(client, "d/f")
    merged = tmp_path / "merged"
    merged.write_text("one\n2\n3\n4\nfive\n")
    said = client.awayfs("resolve", client.path("d/f"), "--with", str(merged))
    assert "resolved, kept the given content" in said
    in_step(client, "d/f", merged.read_text())
    assert sorted(str(lost["which"]) for lost in history(client)) == ["local", "server"]
    client.awayfs("resolve", "--undo", client.path("d/f"))
    in_step(client, "d/f", OURS)
    client.awayfs("resolve", "--undo", client.path("d/f"))  # an undo can be undone
    in_step(client, "d/f", merged.read_text())


def test_the_version_before_both_changes(client: Client) -> None:
    in_conflict(client, "f")
    client.awayfs("resolve", client.path("f"), "--keep", "base")
    in_step(client, "f", BASE)
    client.awayfs("resolve", "--undo", client.path("f"), "--keep", "server")
    in_step(client, "f", THEIRS)


@pytest.mark.parametrize(
    ("keep", "wins", "back"), [("local", OURS, THEIRS), ("server", THEIRS, OURS)]
)
def test_what_lost_comes_back(client: Client, keep: str, wins: str, back: str) -> None:
    in_conflict(client, "f")
    client.awayfs("resolve", client.path("f"), "--keep", keep)
    in_step(client, "f", wins)
    client.awayfs("resolve", "--undo", client.path("f"))
    in_step(client, "f", back)


def test_a_server_that_moved_on_is_not_overwritten(client: Client, tmp_path: Path) -> None:
    in_conflict(client, "f")
    merged = tmp_path / "merged"
    merged.write_text("merged\n")
    for way in (("--keep", "local"), ("--with", str(merged)), ("--keep", "base")):
        newer = f"newer than {way[1]}, of another length {'x' * len(way[1])}\n"
        client.on_server("f").write_text(newer)
        assert "changed it again" in client.fails("resolve", client.path("f"), *way)
        eventually(client.conflicts, "the conflict is found anew")
        assert client.on_server("f").read_text() == newer
        assert Path(client.path("f")).read_text() == OURS
        assert Path(client.path(".awayfs/conflicts/f/server")).read_text() == newer
    client.awayfs("resolve", client.path("f"), "--with", str(merged))
    in_step(client, "f", "merged\n")


def test_made_on_both_sides_becomes_one_file(client: Client, tmp_path: Path) -> None:
    client.awayfs("status")
    os.listdir(client.mountpoint)
    client.offline()
    Path(client.path("new")).write_text("ours\n")
    client.on_server("new").write_text("theirs\n")
    client.online()
    client.sync(check=False)
    assert [c["kind"] for c in client.conflicts()] == ["name/name"]
    (tmp_path / "merged").write_text("both\n")
    client.awayfs("resolve", client.path("new"), "--with", str(tmp_path / "merged"))
    in_step(client, "new", "both\n")
    assert os.listdir(client.server.root) == ["new"]


def test_a_content_for_what_one_side_removed(client: Client, tmp_path: Path) -> None:
    for name in ("here", "there"):
        client.on_server(name).write_text(BASE)
        assert Path(client.path(name)).read_text() == BASE
    client.offline()
    Path(client.path("there")).write_text(OURS)
    client.on_server("there").unlink()
    os.unlink(client.path("here"))
    client.on_server("here").write_text(THEIRS)
    client.online()
    client.sync(check=False)
    assert {c["kind"] for c in client.conflicts()} == {"update/remove", "remove/update"}
    (tmp_path / "merged").write_text("merged\n")
    for name in ("here", "there"):
        client.awayfs("resolve", client.path(name), "--with", str(tmp_path / "merged"))
    in_step(client, "here", "merged\n")
    in_step(client, "there", "merged\n")


def test_what_a_decision_took_away_is_made_again(plain: Client) -> None:
    plain.on_server("f").write_text(BASE)
    assert Path(plain.path("f")).read_text() == BASE
    plain.offline()
    Path(plain.path("f")).write_text(OURS)
    plain.on_server("f").unlink()
    plain.online()
    plain.sync(check=False)
    plain.awayfs("resolve", plain.path("f"), "--keep", "server")
    plain.sync()
    assert not os.path.exists(plain.path("f"))
    plain.awayfs("resolve", "--undo", plain.path("f"))
    in_step(plain, "f", OURS)


def test_an_undo_is_guarded(plain: Client) -> None:
    in_conflict(plain, "f")
    plain.awayfs("resolve", plain.path("f"), "--keep", "server")
    in_step(plain, "f", THEIRS)
    Path(plain.path("f")).write_text("changed since\n")
    assert "changed since that decision" in plain.fails("resolve", "--undo", plain.path("f"))
    plain.awayfs("resolve", "--undo", "--force", plain.path("f"))
    in_step(plain, "f", OURS)
    plain.awayfs("resolve", "--undo", plain.path("f"))
    in_step(plain, "f", "changed since\n")


def test_a_hard_link_is_in_conflict_by_each_of_its_names(plain: Client) -> None:
    for name in ("a", "d/b"):
        plain.on_server(name).parent.mkdir(exist_ok=True)
    plain.on_server("a").write_text(BASE)
    os.link(plain.on_server("a"), plain.on_server("d/b"))
    for name in ("a", "d/b"):
        assert Path(plain.path(name)).read_text() == BASE
    plain.offline()
    Path(plain.path("a")).write_text(OURS)
    plain.on_server("a").write_text(THEIRS)
    plain.online()
    plain.sync(check=False)
    for path in ("a", "d/b", "d"):
        told = json.loads(plain.awayfs("conflicts", plain.path(path), "--json"))["conflicts"]
        assert [conflict["kind"] for conflict in told] == ["update/update"], path
    plain.awayfs("resolve", plain.path("d/b"), "--keep", "local")
    for name in ("a", "d/b"):
        in_step(plain, name, OURS)


def test_many_at_once(plain: Client) -> None:
    names = ["a.txt", "b.txt", "d/a.txt", "d/b.md", "d/e/c.txt"]
    in_conflict(plain, *names)
    mnt = plain.mountpoint
    dry = plain.awayfs("resolve", f"{mnt}/d", "--keep", "server", "--dry-run")
    assert dry.count("update/update: the server's is kept; ours goes to the history") == 3
    assert len(plain.conflicts()) == 5
    assert "resolved 2 conflicts" in plain.awayfs("resolve", f"{mnt}/*.txt", "--keep", "server")
    assert sorted(c["path"] for c in plain.conflicts()) == names[2:]
    said = plain.awayfs("resolve", f"{mnt}/d/**/*.txt", "--keep", "local")
    assert "resolved 2 conflicts" in said
    plain.awayfs("resolve", "--kind", "update/update", "--keep", "local")
    in_step(plain, "a.txt", THEIRS)
    in_step(plain, "d/e/c.txt", OURS)
    in_step(plain, "d/b.md", OURS)


def test_what_cannot_be_decided_is_said_in_one_line(plain: Client, tmp_path: Path) -> None:
    plain.on_server("calm").write_text("x")
    assert "is not in conflict" in plain.fails("resolve", plain.path("calm"), "--keep", "local")
    assert "not in conflict" in plain.fails("resolve", plain.path("none"), "--keep", "local")
    assert "nothing is in conflict" in plain.fails("resolve", plain.path("*.x"), "--keep", "local")
    assert "no such kind" in plain.fails("resolve", "--kind", "odd", "--keep", "local")
    assert "nothing was decided" in plain.fails("resolve", "--undo", plain.path("calm"))
    in_conflict(plain, "f", "g")
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    for file, said in (
        (tmp_path / "missing", "is not a file"),
        (tmp_path, "is a directory"),
        (fifo, "is not a file"),
    ):
        assert said in plain.fails("resolve", plain.path("f"), "--with", str(file))
    (tmp_path / "merged").write_text("m")
    assert "2 conflicts" in plain.fails(
        "resolve", plain.mountpoint, "--with", str(tmp_path / "merged")
    )
    with open(plain.path("f"), "a"):
        assert "has it open" in plain.fails(
            "resolve", plain.path("f"), "--with", str(tmp_path / "merged")
        )
    assert len(plain.conflicts()) == 2 and history(plain) == []
    assert plain.on_server("f").read_text() == THEIRS


def test_a_reader_sees_the_merged_content(plain: Client, tmp_path: Path) -> None:
    in_conflict(plain, "f")
    (tmp_path / "merged").write_text("merged\n")
    with open(plain.path("f")) as reader:
        assert reader.read(3) == "one"
        said = subprocess.run(
            ["cat", plain.path("f")], capture_output=True, text=True, timeout=60, check=True
        )
        assert said.stdout == OURS
        plain.awayfs("resolve", plain.path("f"), "--with", str(tmp_path / "merged"))
        reader.seek(0)
        assert os.pread(reader.fileno(), 100, 0) == b"merged\n"
    in_step(plain, "f", "merged\n")


# -- a full disk ----------------------------------------------------------------------------


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Client]:
    """A volume whose state is on a file system of 16 MB."""
    if os.geteuid() != 0:
        pytest.skip("only root may mount a tmpfs")
    server = make_server("dir", str(tmp_path))
    client = Client(str(tmp_path), server)
    run("mount", "-t", "tmpfs", "-o", "size=16m,mode=700", "tmpfs", client.state)
    try:
        client.mount("fresh=0")
        yield client
    finally:
        client.close()
        run("umount", "-l", client.state)


def test_no_room_for_what_would_be_given_up(small: Client, tmp_path: Path) -> None:
    """Nothing is decided then, and nothing is lost."""
    ours = OURS * 200_000
    in_conflict(small, "f", ours=ours)
    (tmp_path / "merged").write_text("merged\n")
    ballast = Path(small.state, "ballast")
    free = os.statvfs(small.state)
    ballast.write_bytes(bytes(max(0, free.f_bavail * free.f_frsize - len(ours) // 2)))
    for way in (("--keep", "server"), ("--with", str(tmp_path / "merged"))):
        assert "no room to keep" in small.fails("resolve", small.path("f"), *way)
    assert len(small.conflicts()) == 1 and history(small) == []
    assert small.on_server("f").read_text() == THEIRS
    with open(small.path("f")) as file:
        assert file.read() == ours
    ballast.unlink()
    small.awayfs("resolve", small.path("f"), "--keep", "server")
    in_step(small, "f", THEIRS)
    small.awayfs("resolve", "--undo", small.path("f"))
    in_step(small, "f", ours)


# -- tools ----------------------------------------------------------------------------------


def use_tool(client: Client, tmp_path: Path, command: str, trusted: bool = True) -> None:
    (tmp_path / "gitconfig").write_text(
        f'[mergetool "t"]\n\tcmd = {command}\n\ttrustExitCode = {str(trusted).lower()}\n'
    )
    client.environment["GIT_CONFIG_GLOBAL"] = str(tmp_path / "gitconfig")


@pytest.mark.parametrize(
    ("command", "trusted", "said"),
    [
        ("false", True, "status 1"),
        ("kill -SEGV $$", True, "signal 11"),
        ("true", False, "as it was"),
        ("rm $MERGED", True, "no merged file"),
        ("ln -sf /etc/hostname $MERGED", True, "no merged file"),
        ("rm $MERGED; mkfifo $MERGED", True, "no merged file"),
        ("no-such-program-here 2>/dev/null", True, "could not be started"),
        ("true", True, "markers are left"),
    ],
)
def test_a_tool_that_does_not_finish(
    plain: Client, tmp_path: Path, command: str, trusted: bool, said: str
) -> None:
    in_conflict(plain, "f", theirs="eins\n2\n3\n4\n5\n")
    use_tool(plain, tmp_path, command, trusted)
    line = plain.fails("resolve", plain.path("f"), "--tool", "t")
    assert "stays in conflict" in line and said in line
    assert len(plain.conflicts()) == 1 and history(plain) == []
    assert Path(plain.path("f")).read_text() == OURS


def test_a_tool_that_merges(client: Client, tmp_path: Path) -> None:
    in_conflict(client, "my notes.txt")
    script = tmp_path / "tool"
    script.write_text(
        '#!/bin/sh\nstat -c %a "$(dirname "$BASE")" > ' + str(tmp_path / "mode") + "\n"
        'cat "$BASE" "$LOCAL" "$REMOTE" > ' + str(tmp_path / "seen") + "\n"
        'cp "$MERGED" ' + str(tmp_path / "first") + '; echo done > "$MERGED"\n'
    )
    script.chmod(0o755)
    use_tool(client, tmp_path, str(script))
    said = client.awayfs("resolve", client.path("my notes.txt"), "--tool", "t")
    assert "resolved, kept the merged content" in said
    assert (tmp_path / "seen").read_text() == BASE + OURS + THEIRS
    assert (tmp_path / "first").read_text() == "one\n2\n3\n4\nfive\n"  # merged already
    assert (tmp_path / "mode").read_text() == "700\n"
    in_step(client, "my notes.txt", "done\n")
    assert {lost["why"] for lost in history(client)} == {"--tool t"}


# -- many -----------------------------------------------------------------------------------

MANY = 10_000
LIST_S, EACH_S = 3.0, 0.02
"""Measured on two busy cores: 6.8 s and 0.005 s."""


@pytest.fixture
def seldom_fresh(tmp_path: Path) -> Iterator[Client]:
    """A mount that does not ask the server of a file each time: that is not what is looked at."""
    with mounted("dir", str(tmp_path)) as mount:
        yield mount


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_ten_thousand_conflicts(seldom_fresh: Client) -> None:
    """Listing stays usable, deciding all at once works, and the mount answers meanwhile."""
    root, mnt = seldom_fresh.server.root, seldom_fresh.mountpoint
    make = (
        "import os, sys\n"
        "for n in range(50):\n"
        "    os.makedirs(f'{sys.argv[1]}/{n}', exist_ok=True)\n"
        f"for n in range({MANY}):\n"
        "    with open(f'{sys.argv[1]}/{n % 50}/{n}', 'w') as f: f.write(sys.argv[2])\n"
    )
    python = [sys.executable, "-c", make]
    subprocess.run([*python, root, BASE], check=True, timeout=300)
    seldom_fresh.awayfs("hoard", mnt, timeout=600)
    seldom_fresh.offline()
    subprocess.run([*python, mnt, OURS], check=True, timeout=600)
    subprocess.run([*python, root, THEIRS], check=True, timeout=300)
    seldom_fresh.online()
    seldom_fresh.awayfs("sync", mnt, "--wait", check=False, timeout=900)
    began = time.monotonic()
    listed = seldom_fresh.conflicts()
    listing = time.monotonic() - began
    assert len(listed) == MANY
    began = time.monotonic()
    deciding = subprocess.Popen(
        [sys.executable, "-m", "awayfs", "resolve", mnt, "--keep", "local"],
        stdout=subprocess.PIPE,
        text=True,
        env=seldom_fresh.env,
    )
    slowest = 0.0
    while deciding.poll() is None:
        asked = time.monotonic()
        subprocess.run(["stat", f"{mnt}/7"], check=True, timeout=60, capture_output=True)
        slowest = max(slowest, time.monotonic() - asked)
        time.sleep(0.2)
    bulk = time.monotonic() - began
    assert deciding.stdout is not None and f"resolved {MANY} conflicts" in deciding.stdout.read()
    seldom_fresh.awayfs("sync", mnt, "--wait", timeout=900)
    assert seldom_fresh.conflicts() == []
    assert Path(root, "7", "7").read_text() == Path(root, "49", "9999").read_text() == OURS
    print(f"listing {listing:.2f} s, deciding {bulk:.1f} s, stat at most {slowest:.2f} s")
    assert listing < 5 * LIST_S and bulk < 5 * EACH_S * MANY and slowest < 5


def test_both_of_a_removal_and_an_edit(plain: Client) -> None:
    """There are no two to be kept, and the dry run says so."""
    plain.on_server("f").write_text("base\n")
    Path(plain.path("f")).read_text()
    plain.offline()
    os.unlink(plain.path("f"))
    plain.on_server("f").write_text(THEIRS)
    plain.online()
    plain.sync(check=False)
    assert [c["kind"] for c in plain.conflicts()] == ["remove/update"]
    dry = plain.awayfs("resolve", plain.path("f"), "--keep", "both", "--dry-run")
    assert "remove/update: the server's is kept, as there is none of ours" in dry
    plain.awayfs("resolve", plain.path("f"), "--keep", "both")
    in_step(plain, "f", THEIRS)
    assert os.listdir(plain.server.root) == ["f"]


@pytest.mark.parametrize("at_once", [False, True])
def test_a_directory_that_stayed_for_an_edit_is_removed_after_all(
    at_once: bool, client: Client
) -> None:
    """The edit was decided about first, and nothing holds the directory any more."""
    client.on_server("d").mkdir()
    client.on_server("d/f").write_text(BASE)
    assert os.listdir(client.path("d")) == ["f"]
    client.offline()
    os.unlink(client.path("d/f"))
    os.rmdir(client.path("d"))
    client.on_server("d/f").write_text(THEIRS)
    client.online()
    client.sync(check=False)
    assert sorted(c["path"] for c in client.conflicts()) == ["d", "d/f"]
    if not at_once:
        client.awayfs("resolve", client.path("d/f"), "--keep", "local")
    client.awayfs("resolve", client.path("d"), "--keep", "local")
    client.sync()
    assert client.conflicts() == []
    assert not client.on_server("d").exists() and os.listdir(client.mountpoint) == []
    client.awayfs("resolve", "--undo", client.path("d/f"))
    in_step(client, "d/f", THEIRS)


@pytest.mark.parametrize("keep", ["both", "local", "server"])
def test_a_directory_renamed_over_one_that_was_filled(keep: str, plain: Client) -> None:
    for name in ("ours", "place"):
        Path(plain.server.root, name).mkdir()
    plain.on_server("ours/mine").write_text(OURS)
    assert Path(plain.path("ours/mine")).read_text() == OURS
    assert os.listdir(plain.path("place")) == []
    plain.offline()
    os.rename(plain.path("ours"), plain.path("place"))
    plain.on_server("place/theirs").write_text(THEIRS)
    plain.online()
    plain.sync(check=False)
    assert [c["kind"] for c in plain.conflicts()] == ["remove/update"]
    told = {
        "both": "both are kept, under two names",
        "local": "ours takes the name; the server's gets one of its own",
        "server": "our rename is undone",
    }
    way = ("resolve", plain.path("place"), "--keep", keep)
    assert told[keep] in plain.awayfs(*way, "--dry-run")
    plain.awayfs(*way)
    plain.sync()
    assert plain.conflicts() == []
    found = {
        tuple(os.listdir(Path(plain.server.root, n))): n for n in os.listdir(plain.server.root)
    }
    mine, theirs = found[("mine",)], found[("theirs",)]
    copy = "place (conflict "
    assert mine.startswith({"both": copy, "local": "place", "server": "ours"}[keep])
    assert theirs.startswith(copy if keep == "local" else "place")
    assert len(found) == 2 and sorted(os.listdir(plain.mountpoint)) == sorted(found.values())
