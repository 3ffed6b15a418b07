"""``awayfs resolve`` with a daemon that only answers, and merge tools as git starts them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from tests.unit.test_cli_commands import Daemon, M, daemon, failed, run, worked  # noqa: F401

from awayfs.cli import mergetools, resolve
from awayfs.cli.ask import Failed
from awayfs.control.client import Client
from awayfs.control.messages import ControlError

MANY = {
    "resolved": [{"path": "a", "kind": "x", "kept": "local"}] * 3,
    "failed": [{"path": "b", "why": "it is gone"}],
    "failures": 1002,
    "left": 0,
}


def test_many_at_once(daemon: Daemon) -> None:  # noqa: F811
    daemon.replies["resolve"] = {**MANY, "failed": [], "failures": 0}
    assert "resolved 3 conflicts" in worked("resolve", M + "/a", M + "/d/*.txt", "--keep", "local")
    assert daemon.asked[-1][1]["paths"] == ["a", "d/*.txt"]
    worked("resolve", "--kind", "update/update", "--keep", "local")
    assert daemon.asked[-1][1]["kinds"] == ["update/update"]


def test_failures_are_told_and_counted(daemon: Daemon) -> None:  # noqa: F811
    daemon.replies["resolve"] = MANY
    result = run("resolve", M + "/d", "--keep", "local")
    assert result.exit_code == 1 and "resolved 3 conflicts" in result.stdout
    assert f"{M}/b: it is gone" in result.stderr and "and 1001 more" in result.stderr


def test_a_server_that_went_away_is_told(daemon: Daemon) -> None:  # noqa: F811
    daemon.replies["resolve"] = {**MANY, "failed": [], "failures": 0, "left": 7}
    assert "7 conflicts are left" in failed("resolve", M + "/d", "--keep", "local")


def test_a_dry_run_says_what_would_be_done(daemon: Daemon) -> None:  # noqa: F811
    daemon.replies["resolve"] = {"would": [{"path": "a", "kind": "type", "text": "ours is kept"}]}
    assert f"{M}/a  type: ours is kept" in worked("resolve", M, "--keep", "local", "--dry-run")
    assert daemon.asked[-1][1]["dry_run"] is True


@pytest.mark.parametrize("method", ["resolve", "undo"])
def test_what_failed_is_named_once(
    method: str, daemon: Daemon, monkeypatch: pytest.MonkeyPatch  # noqa: F811
) -> None:  # fmt: skip
    """The daemon names it by its path in the mount, a person as it is seen from here."""

    def refuse(self: Any, *arguments: Any) -> None:
        raise ControlError("d/h2: is not in conflict; see awayfs conflicts", "not-found")

    monkeypatch.setattr(Client, "call", refuse)
    way = ["--undo"] if method == "undo" else ["--keep", "local"]
    said = failed("resolve", M + "/d/h2", *way)
    assert f"awayfs: {M}/d/h2: is not in conflict; see awayfs conflicts" in said.splitlines()
    if method == "resolve":
        said = failed("resolve", M + "/d/h2", M + "/x", *way)
        assert f"awayfs: {M}/d/h2: is not in conflict; see awayfs conflicts" in said.splitlines()


def test_undo_and_history(daemon: Daemon) -> None:  # noqa: F811
    daemon.replies["undo"] = {"path": "a", "which": "local", "why": "--keep server"}
    assert "our version" in worked("resolve", "--undo", M + "/a")
    worked("resolve", "--undo", M + "/a", "--keep", "server", "--force")
    assert daemon.asked[-1] == ("undo", {"path": "a", "which": "server", "force": True})
    assert "nothing was given up" in worked("resolve", "--history")
    lost = {"path": "a", "which": "local", "size": 3, "kept_ns": 1, "why": "--keep server"}
    daemon.replies["history"] = {"history": [lost]}
    assert f"{M}/a  local, 3 B" in worked("resolve", "--history", M + "/a")


@pytest.fixture
def own_git(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A git configuration of one's own, and no tools but those put in ``bin``."""
    config = tmp_path / "gitconfig"
    config.write_text("")
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(config))
    (tmp_path / "bin").mkdir()
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:/usr/bin:/bin")
    return tmp_path


def test_tools_that_are_not_there(own_git: Path) -> None:
    for name, said in (
        ("meld", "meld is not installed"),
        ("nothing-known", "not a tool known here"),
        ("../evil", "not the name of a tool"),
        ("-c", "not the name of a tool"),
    ):
        with pytest.raises(Failed, match=said):
            mergetools.find(name)


def test_the_users_own_definition_wins(own_git: Path) -> None:
    (own_git / "gitconfig").write_text(
        '[mergetool "meld"]\n\tcmd = my-merge \\"$MERGED\\"\n[mergetool "mine"]\n'
        "\tcmd = x\n\ttrustExitCode = yes\n"
        f'[mergetool "kdiff3"]\n\tpath = {own_git}/bin/k3\n'
    )
    assert mergetools.find("meld") == mergetools.Tool(("sh", "-c", 'my-merge "$MERGED"'), False)
    assert mergetools.find("mine").trusted
    (own_git / "bin" / "k3").write_text("#!/bin/sh\n")
    (own_git / "bin" / "k3").chmod(0o755)
    assert mergetools.find("kdiff3").command[0] == f"{own_git}/bin/k3"


def test_a_repository_or_share_defines_no_tool(
    own_git: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    repository = own_git / "share"
    (repository / ".git" / "objects").mkdir(parents=True)
    (repository / ".git" / "refs").mkdir()
    (repository / ".git" / "HEAD").write_text("ref: refs/heads/main\n")
    (repository / ".git" / "config").write_text('[mergetool "evil"]\n\tcmd = rm -rf /\n')
    monkeypatch.chdir(repository)
    monkeypatch.setenv("GIT_DIR", str(repository / ".git"))
    with pytest.raises(Failed, match="not a tool known here"):
        mergetools.find("evil")


@pytest.mark.parametrize("name", ["\u6f22" * 83 + ".txt", "a." + "x" * 250, "\udcff" * 255, "-rf"])
def test_names_for_a_tool_are_never_too_long(name: str, tmp_path: Path) -> None:
    (tmp_path / "local").write_bytes(b"ours")
    places = resolve._arranged(str(tmp_path), name, ["local"])
    assert Path(places["LOCAL"]).read_bytes() == b"ours" and os.path.exists(places["BASE"])
    assert all(os.path.dirname(place) == str(tmp_path) for place in places.values())


def test_variables_are_not_for_a_shell(tmp_path: Path) -> None:
    """A known tool gets paths as arguments, whatever is in them."""
    places = {n: f"{tmp_path}/$(touch x); {n}" for n in ("BASE", "LOCAL", "REMOTE", "MERGED")}
    tool = mergetools.Tool(("/usr/bin/test", "$MERGED", "=", places["MERGED"]), True)
    assert mergetools.run(tool, places) == 0 and os.listdir(tmp_path) == []


def test_the_environment_of_a_shell_command(tmp_path: Path) -> None:
    places = {n: f"{tmp_path}/{n}" for n in ("BASE", "LOCAL", "REMOTE", "MERGED")}
    tool = mergetools.Tool(("sh", "-c", 'echo "$BASE $LOCAL $REMOTE" > "$MERGED"; exit 3'), True)
    assert mergetools.run(tool, places) == 3
    assert Path(places["MERGED"]).read_text().split() == list(places.values())[:3]


MARKED = b"<<<<<<< local\na\n=======\nb\n>>>>>>> server\n"


@pytest.mark.parametrize(
    ("status", "trusted", "after", "said"),
    [
        (0, True, b"merged", None),
        (0, False, b"merged", None),
        (1, False, b"merged", None),  # a status that says nothing
        (1, True, b"merged", "status 1"),
        (-11, True, b"merged", "signal 11"),
        (-9, False, b"merged", "signal 9"),
        (127, False, b"merged", "could not be started"),
        (0, True, None, "no merged file"),
        (0, True, MARKED, "markers"),
        (0, False, MARKED, "markers"),
        (0, False, b"before", "as it was"),
        (0, True, b"before", None),  # looked at, and found right
    ],
)
def test_verdicts(status: int, trusted: bool, after: bytes | None, said: str | None) -> None:
    got: Any = mergetools.verdict(status, trusted, b"before", after)
    assert got is None if said is None else said in got
