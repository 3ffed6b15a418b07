"""Conflicts that rules decide, on real mounts: each strategy, and what a share may not say."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.harness import Client, eventually, make_server, needs_fuse
from tests.unit.test_programs import alive

pytestmark = needs_fuse

BASE, OURS, THEIRS = "1\n2\n3\n4\n5\n", "one\n2\n3\n4\n5\n", "1\n2\n3\n4\nfive\n"
MERGED = "one\n2\n3\n4\nfive\n"
CLASH = "eins\n2\n3\n4\n5\n"


@contextlib.contextmanager
def configured(kind: str, tmp_path: Path, config: str) -> Iterator[Client]:
    server = make_server(kind, str(tmp_path))
    client = Client(str(tmp_path), server)
    client.environment["XDG_CONFIG_HOME"] = f"{tmp_path}/config"
    configure(client, config)
    try:
        client.mount("fresh=0")
        yield client
    finally:
        client.close()
        server.close()


def configure(client: Client, config: str) -> None:
    path = Path(client.environment["XDG_CONFIG_HOME"], "awayfs", "config.toml")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(config)


SIDES = ("ours", "theirs")


def rule(pattern: str, strategy: str, more: str = "") -> str:
    return f'[[merge]]\npattern = "{pattern}"\nstrategy = "{strategy}"\n{more}\n'


def server_file(client: Client, name: str) -> Path:
    path = Path(client.server.root, name)
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def meet(client: Client, *names: str, ours: str = OURS, theirs: str = THEIRS) -> None:
    """Files that both sides edited while apart; back together."""
    for name in names:
        server_file(client, name).write_text(BASE)
        assert Path(client.path(name)).read_text() == BASE
    client.offline()
    for name in names:
        server_file(client, name).write_text(theirs)
        Path(client.path(name)).write_text(ours)
    client.online()
    client.sync(check=False)


def in_step(client: Client, name: str, text: str) -> None:
    def there() -> bool:  # over SFTP the name is free for a moment
        with contextlib.suppress(FileNotFoundError):
            return server_file(client, name).read_text() == text
        return False

    eventually(there, f"{name} is {text!r}", 30)
    client.sync()
    assert Path(client.path(name)).read_text() == text
    assert client.conflicts() == []


def undecided(client: Client, said: str) -> dict[str, object]:
    """The one conflict that stays, once its note says why."""

    def noted() -> list[dict[str, object]]:
        return [c for c in client.conflicts() if said in str(c["note"])]

    return dict(eventually(noted, f"a conflict that says {said!r}", 30)[0])


@pytest.mark.parametrize("kind", ["dir", "sftp"])
def test_a_clean_merge_is_applied(kind: str, tmp_path: Path) -> None:
    with configured(kind, tmp_path, rule("*.txt", "text")) as client:
        meet(client, "d/f.txt")
        in_step(client, "d/f.txt", MERGED)
        told = client.awayfs("resolve", "--history")
        assert told.count("given up just now: rule *.txt (text)") == 2
        client.awayfs("resolve", "--undo", client.path("d/f.txt"))
        in_step(client, "d/f.txt", OURS)


def test_an_unclean_merge_stays_with_a_fourth_variant(tmp_path: Path) -> None:
    with configured("dir", tmp_path, rule("*.txt", "text")) as client:
        meet(client, "f.txt", theirs=CLASH)
        undecided(client, "not decided by rule *.txt (text): both changed the same")
        merged = Path(client.path(".awayfs/conflicts/f.txt/merged")).read_text()
        assert merged == f"<<<<<<< local\none\n=======\neins\n>>>>>>> server\n{BASE[2:]}"
        assert server_file(client, "f.txt").read_text() == CLASH
        assert Path(client.path("f.txt")).read_text() == OURS
        configure(client, rule("*.txt", "union"))
        client.offline()
        client.online()
        in_step(client, "f.txt", "eins\none\n2\n3\n4\n5\n")


@pytest.mark.parametrize(
    ("strategy", "outcome"),
    [("local", OURS), ("server", THEIRS), ("newest", OURS), ("union", MERGED)],
)
def test_strategies(strategy: str, outcome: str, tmp_path: Path) -> None:
    with configured("dir", tmp_path, rule("**/f", strategy)) as client:
        meet(client, "d/f")
        in_step(client, "d/f", outcome)


def test_both_with_a_name_that_no_program_loads(tmp_path: Path) -> None:
    config = rule("conf.d/*.conf", "both", 'copy-name = "{name}.conflict-{date}"')
    with configured("dir", tmp_path, config) as client:
        meet(client, "conf.d/a.conf")
        in_step(client, "conf.d/a.conf", THEIRS)
        names = sorted(os.listdir(f"{client.server.root}/conf.d"))
        assert names[0] == "a.conf" and len(names) == 2
        assert names[1].startswith("a.conf.conflict-2") and not names[1].endswith(".conf")
        assert server_file(client, f"conf.d/{names[1]}").read_text() == OURS


def test_binary_and_unnamed_files_stay(tmp_path: Path) -> None:
    with configured("dir", tmp_path, rule("*.bin", "text")) as client:
        meet(client, "a.bin", "b", ours="\0ours", theirs="\0their")
        undecided(client, "it is binary")
        assert len(client.conflicts()) == 2
        assert server_file(client, "a.bin").read_text() == "\0their"


def script(tmp_path: Path, text: str) -> str:
    path = tmp_path / "merger"
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return str(path)


@pytest.mark.parametrize("kind", ["dir", "sftp"])
def test_a_command_of_the_users(kind: str, tmp_path: Path) -> None:
    merger = script(tmp_path, f'pwd > {tmp_path}/where; stat -c %a . >> {tmp_path}/where\n'
                    'cat "$1" "$2" "$3" > "$4"')  # fmt: skip
    with configured(kind, tmp_path, rule("*.odt", "command", f'command = ["{merger}"]')) as client:
        meet(client, "a b.odt")
        in_step(client, "a b.odt", BASE + OURS + THEIRS)
        scratch, mode = (tmp_path / "where").read_text().split()
        assert mode == "700" and not os.path.exists(scratch)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("echo no idea; exit 3", "no idea"),
        ("exit 0", "left no merged file"),
        ('touch "$MERGED"', "left an empty file"),
        ('ln -s /etc/passwd "$MERGED"', "not a regular file"),
        ('printf "<<<<<<< a\\n=======\\n>>>>>>> b\\n" > "$MERGED"', "both changed the same"),
        ("kill -9 $$", "signal 9"),
        ("sleep 60 & sleep 60", "longer than 1 s"),
    ],
)
def test_a_command_that_fails(text: str, said: str, tmp_path: Path) -> None:
    merger = script(tmp_path, f"echo $$ > {tmp_path}/pid\n{text}")
    config = rule("*", "command", f'command = ["{merger}"]\ntime-limit = 1')
    with configured("dir", tmp_path, config) as client:
        meet(client, "f")
        undecided(client, said)
        assert Path(client.path("f")).read_text() == OURS
        assert server_file(client, "f").read_text() == THEIRS
        assert alive(int((tmp_path / "pid").read_text())) == []


def test_a_command_that_is_not_there(tmp_path: Path) -> None:
    config = rule("*", "command", 'command = ["/no/such/program"]')
    with configured("dir", tmp_path, config) as client:
        meet(client, "f")
        undecided(client, "/no/such/program: No such file")


def test_the_share_sets_defaults_and_runs_nothing(tmp_path: Path) -> None:
    with configured("dir", tmp_path, rule("mine.txt", "ask")) as client:
        server_file(client, "d/.awayfs.toml").write_text(
            rule("*.txt", "text")
            + rule("*.sh", "command", f'command = ["touch", "{tmp_path}/ran"]')
        )
        server_file(client, ".awayfs.toml").write_text(rule("*.log", "union"))
        meet(client, "d/f.txt", "d/x.sh", "d/e/x.log", "mine.txt", "other.txt")
        eventually(lambda: len(client.conflicts()) == 3, "the share's rules are obeyed", 30)
        left = sorted(str(c["path"]) for c in client.conflicts())
        assert left == ["d/x.sh", "mine.txt", "other.txt"]
        assert server_file(client, "d/f.txt").read_text() == MERGED
        assert not (tmp_path / "ran").exists()
        said = complaints(client)
        assert "d/.awayfs.toml: [[merge]] number 2" in said and "never from the share" in said


def complaints(client: Client) -> str:
    import subprocess
    import sys

    done = subprocess.run(
        [sys.executable, "-m", "awayfs", "conflicts", client.mountpoint],
        capture_output=True,
        text=True,
        timeout=60,
        env=client.env,
        check=True,
    )
    return done.stderr


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("[[merge]\n", "line 1"),
        ("a = 1\nb = \n", "line 2"),
        (rule("*", "best"), "no strategy 'best'"),
        ("\n\n\udcff", "line 3: is not UTF-8"),
    ],
)
def test_a_bad_file_is_said_and_does_no_harm(content: str, said: str, tmp_path: Path) -> None:
    with configured("dir", tmp_path, "") as client:
        path = Path(client.environment["XDG_CONFIG_HOME"], "awayfs", "config.toml")
        path.write_bytes(content.encode("utf-8", "surrogateescape"))
        server_file(client, ".awayfs.toml").write_bytes(path.read_bytes())
        meet(client, "f")
        time.sleep(0.5)
        eventually(lambda: ".awayfs.toml" in complaints(client), "the share's is complained about")
        lines = complaints(client).splitlines()
        assert len(lines) == 2 and all(said in line for line in lines), lines
        configure(client, rule("f", "text"))
        client.offline()
        client.online()
        in_step(client, "f", MERGED)


def test_a_file_that_is_open_waits(tmp_path: Path) -> None:
    with configured("dir", tmp_path, rule("*", "text")) as client:
        server_file(client, "f").write_text(BASE)
        assert Path(client.path("f")).read_text() == BASE
        client.offline()
        with open(client.path("f"), "r+") as writer:
            writer.write("one\n2")
            writer.truncate(0)
            writer.seek(0)
            writer.write(OURS)
            writer.flush()
            server_file(client, "f").write_text(THEIRS)
            client.online()
            client.sync(check=False)
            eventually(lambda: len(client.conflicts()) == 1, "the conflict")
            time.sleep(1)
            assert len(client.conflicts()) == 1
        in_step(client, "f", MERGED)


def test_rules_for_more_than_contents(tmp_path: Path) -> None:
    """Attributes, links, and what one side removed: nothing is removed by a rule."""
    rules = rule("*.ours", "local") + rule("*.theirs", "server") + rule("*.newest", "newest")
    names = [f"{what}.{side}" for what in ("mode", "gone", "here") for side in ("ours", "theirs")]
    with configured("dir", tmp_path, rules) as client:
        for name in [*names, "gone.newest"]:
            server_file(client, name).write_text(BASE)
            os.chmod(server_file(client, name), 0o644)
            assert Path(client.path(name)).read_text() == BASE
        client.offline()
        for side in ("ours", "theirs"):
            os.chmod(client.path(f"mode.{side}"), 0o640)
            os.chmod(server_file(client, f"mode.{side}"), 0o604)
            os.symlink("ours", client.path(f"link.{side}"))
            os.symlink("theirs, longer", server_file(client, f"link.{side}"))
            Path(client.path(f"gone.{side}")).write_text(OURS)  # and removed there
            server_file(client, f"gone.{side}").unlink()
            Path(client.path(f"here.{side}")).unlink()  # and edited there
            server_file(client, f"here.{side}").write_text(THEIRS)
        Path(client.path("gone.newest")).write_text(OURS)
        server_file(client, "gone.newest").unlink()
        client.online()
        client.sync(check=False)
        left = {"gone.theirs", "here.ours", "gone.newest"}
        eventually(lambda: {c["path"] for c in client.conflicts()} == left, "the rest is decided")
        client.sync(check=False)
        modes = [os.stat(server_file(client, f"mode.{s}")).st_mode & 0o777 for s in SIDES]
        assert modes == [0o640, 0o604]
        links = [os.readlink(server_file(client, f"link.{s}")) for s in SIDES]
        assert links == ["ours", "theirs, longer"]
        assert server_file(client, "gone.ours").read_text() == OURS
        assert server_file(client, "here.theirs").read_text() == THEIRS
        assert Path(client.path("gone.theirs")).read_text() == OURS
        assert Path(client.path("here.ours")).read_text() == THEIRS
