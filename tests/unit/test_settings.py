"""``config.toml``: scopes, what is wrong in it, and reading it again."""

from __future__ import annotations

import os
import time
import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from awayfs.control.config import ConfigFile, config_file, parse
from awayfs.control.options import size
from awayfs.core.history import Limits
from awayfs.core.settings import Settings, settings_of

TEXT = """
[[merge]]
pattern = "*.txt"
strategy = "text"
[conflicts]
copy-name = "{name}.all"
[history]
age-days = 7
total = "2G"
[server."host"]
conflicts = {copy-name = "{name}.host"}
[[server."host".merge]]
pattern = "*.txt"
strategy = "server"
[volume."dir:/x"]
history = {largest = 5}
[[volume."dir:/x".merge]]
pattern = "*.txt"
strategy = "local"
[volume."dir:/other"]
colour = 1
"""


def settings(text: str, *names: str, server: str = "") -> Settings:
    return settings_of(tomllib.loads(text), "config.toml", names, server, size)


def test_scopes_go_from_near_to_far() -> None:
    found = settings(TEXT, "dir:/x", "/mnt", server="host")
    assert [str(rule.strategy) for rule in found.rules] == ["local", "server", "text"]
    assert found.copy_name == "{name}.host" and not found.complaints
    assert found.history == Limits(7, 2 << 30, 5)
    other = settings(TEXT, "dir:/y", server="elsewhere")
    assert [str(rule.strategy) for rule in other.rules] == ["text"]
    assert other.copy_name == "{name}.all" and other.history.one == Limits().one


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("colour = 1", "no setting 'colour'"),
        ("volume = 1", 'write [volume."NAME"]'),
        ("[volume]\nx = 1", "'x' is ignored"),
        ('[volume."v"]\ncolour = 1', '[volume."v"]: there is no setting'),
        ("history = 1", "write [history]"),
        ("[history]\nages = 1", "history.ages: there is no such setting"),
        ("[history]\nage-days = -1", "is a number of days"),
        ("[history]\nage-days = true", "is a number of days"),
        ("[history]\ntotal = 'much'", "is a size such as"),
        ("[history]\ntotal = -1", "is a size such as"),
        ("[conflicts]\ncopy-name = 1", "is a text"),
        ("[conflicts]\ncopy-name = 'x'", "needs {stem} or {name}"),
        ("merge = 1", "two brackets"),
    ],
)
def test_what_is_wrong_is_left_out_and_said(text: str, said: str) -> None:
    found = settings(text, "v")
    assert len(found.complaints) == 1 and said in found.complaints[0]
    assert found == Settings(complaints=found.complaints)


def test_a_file_is_read_again_when_it_changes(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    config = ConfigFile(str(path), ["v"], "")
    assert config() == Settings()
    path.write_text("[history]\nage-days = 3\n")
    first = config()
    assert first.history.age_days == 3 and config() is first
    path.write_text("[history\n")
    broken = config()
    assert broken.history.age_days == 3  # what was set stays
    assert len(broken.complaints) == 1 and "line 1" in broken.complaints[0]
    path.unlink()
    assert config() == Settings()
    path.mkdir()
    assert "cannot be read" in config().complaints[0]
    os.rmdir(path)
    os.mkfifo(path)
    assert config().rules == ()  # and nobody waits for it


@given(st.binary(max_size=200))
def test_any_bytes_are_a_file_or_complained_about(content: bytes) -> None:
    table, complaint = parse(content, "f")
    assert complaint is None or (not table and "\n" not in complaint)
    found = settings_of(table, "f", ["v"], "h", size)
    assert all("\n" not in line for line in found.complaints)


@pytest.mark.parametrize(
    "content",
    [
        b".".join([b"a"] * 30_000) + b" = 1",
        b"[" + b" . ".join([b"'a'"] * 9_000) + b"]",
        b"x = " + b"9" * 5_000,
        b"x = " + b"[" * 60_000,
    ],
)
def test_what_would_take_long_to_read_is_not_read(content: bytes) -> None:
    """Such a file may come from the share; the mount waits meanwhile."""
    began = time.monotonic()
    table, complaint = parse(content, ".awayfs.toml")
    assert not table and complaint and "ignored" in complaint
    assert time.monotonic() - began < 1.0


def test_where_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", "/c")
    assert config_file() == "/c/awayfs/config.toml"
    monkeypatch.setenv("XDG_CONFIG_HOME", "relative")
    monkeypatch.setenv("HOME", "/h")
    assert config_file() == "/h/.config/awayfs/config.toml"
