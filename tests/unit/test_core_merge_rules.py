"""Which rule decides: patterns, precedence, and what is wrong with a rule, in one line."""

from __future__ import annotations

import re
import time
import tomllib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from awayfs.core.conflicts import ConflictKind, Resolution
from awayfs.core.merge_rules import (
    DECIDABLE,
    Rule,
    Strategy,
    choice,
    decides,
    fits,
    in_order,
    matches,
    rule_for,
    rules_of,
)
from awayfs.core.naming import conflict_copy_name, why_not_template
from awayfs.core.patterns import Pattern
from awayfs.core.types import Kind


@pytest.mark.parametrize(
    ("pattern", "path", "fit"),
    [
        ("*.txt", "a.txt", True),
        ("*.txt", "deep/down/a.txt", True),
        ("*.txt", "a.txt/b", False),
        ("*.txt", "a.TXT", False),
        ("notes/*.txt", "notes/a.txt", True),
        ("notes/*.txt", "notes/deep/a.txt", False),
        ("notes/*.txt", "x/notes/a.txt", False),
        ("notes/**", "notes/deep/a", True),
        ("notes/", "notes/deep/a", True),
        ("notes/", "notes", False),
        ("**/notes/*", "x/y/notes/a", True),
        ("**/notes/*", "notes/a", True),
        ("/a.txt", "a.txt", True),
        ("/a.txt", "b/a.txt", False),
        ("file[0-9]", "file7", True),
        ("file[!0-9]", "file7", False),
        ("a?c", "abc", True),
        ("a?c", "a/c", False),
        ("[", "[", True),
        ("[]", "[]", True),
        ("a.b", "axb", False),
        ("*", "new\nline", True),
    ],
)
def test_patterns(pattern: str, path: str, fit: bool) -> None:
    rules, wrong = rules_of([{"pattern": pattern, "strategy": "text"}], "config.toml")
    assert not wrong
    assert (rule_for(path.encode(), rules) is not None) is fit


@given(st.text(min_size=1))
def test_any_pattern_is_a_pattern_or_is_complained_about(pattern: str) -> None:
    rules, wrong = rules_of([{"pattern": pattern, "strategy": "text"}], "c")
    assert bool(rules) != bool(wrong)
    for rule in rules:
        fits(rule, b"some/path")


@given(st.text(alphabet="abc./-", min_size=1))
def test_a_plain_path_fits_itself(path: str) -> None:
    if path.strip("/") and not path.startswith("/") and not path.endswith("/"):
        assert matches("./" + path, path)


def rules(text: str, **more: object) -> tuple[list[Rule], list[str]]:
    return rules_of(tomllib.loads(text).get("merge"), "config.toml", **more)  # type: ignore[arg-type]


def test_a_file_with_rules() -> None:
    found, wrong = rules(
        """
        [[merge]]
        pattern = ["*.txt", "*.md"]
        strategy = "text"
        [[merge]]
        pattern = "*.odt"
        strategy = "command"
        command = ["merge-odt", "{base}", "{local}", "{server}", "{merged}"]
        time-limit = 5
        [[merge]]
        pattern = "conf.d/*.conf"
        strategy = "both"
        copy-name = "{name}.conflict-{date}"
        """
    )
    assert not wrong and [rule.strategy for rule in found] == ["text", "text", "command", "both"]
    assert found[2].time_limit_s == 5 and found[2].command[0] == "merge-odt"
    assert rule_for(b"x/y.md", found) is found[1] and rule_for(b"y.doc", found) is None


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[merge]\npattern='a'", "two brackets"),
        ("merge = ['x']", "number 1: is not a table"),
        ("[[merge]]\nstrategy='text'", "has no pattern"),
        ("[[merge]]\npattern='a'", "has no strategy"),
        ("[[merge]]\npattern='a'\nstrategy='best'", "no strategy 'best'; known are text"),
        ("[[merge]]\npattern='a'\nstrategy='text'\ncolour=1", "no option 'colour'"),
        ("[[merge]]\npattern=1\nstrategy='text'", "pattern has a value of the wrong type"),
        ("[[merge]]\npattern='/'\nstrategy='text'", "a pattern is a text"),
        ("[[merge]]\npattern=['a', 2]\nstrategy='text'", "a pattern is a text"),
        ("[[merge]]\npattern='[z-a]'\nstrategy='text'", "is not understood"),
        ("[[merge]]\npattern='a'\nstrategy='command'", "go together"),
        ("[[merge]]\npattern='a'\nstrategy='text'\ncommand=['x']", "go together"),
        ("[[merge]]\npattern='a'\nstrategy='command'\ncommand=[1]", "list of words"),
        ("[[merge]]\npattern='a'\nstrategy='text'\ntime-limit=0", "more than 0"),
        ("[[merge]]\npattern='a'\nstrategy='text'\ntime-limit=true", "wrong type"),
        ("[[merge]]\npattern='a'\nstrategy='both'\ncopy-name='x'", "needs {stem} or {name}"),
        ("[[merge]]\npattern='a'\nstrategy='both'\ncopy-name='a/{name}'", "without a slash"),
        ("[[merge]]\npattern='a'\nstrategy='both'\ncopy-name='{name}{what}'", "no other braces"),
        ("[[merge]]\npattern='a'\nstrategy='both'\ncopy-name='{name}'", "another name"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(text: str, said: str) -> None:
    found, wrong = rules(text)
    assert not found and len(wrong) == 1
    assert said in wrong[0] and wrong[0].startswith("config.toml: ") and "\n" not in wrong[0]


def test_a_bad_rule_does_not_take_the_good_ones_along() -> None:
    found, wrong = rules("[[merge]]\npattern='a'\n[[merge]]\npattern='b'\nstrategy='local'")
    assert [rule.pattern for rule in found] == ["b"] and "number 1" in wrong[0]


def test_the_share_names_no_command() -> None:
    text = "[[merge]]\npattern='a'\nstrategy='command'\ncommand=['rm', '-rf', '/']"
    found, wrong = rules(text, commands=False)
    assert not found and "never from the share" in wrong[0]
    sneaky = "[[merge]]\npattern='a'\nstrategy='text'\ncommand=['rm']"
    assert "never from the share" in rules(sneaky, commands=False)[1][0]


def test_a_path_is_no_part_of_a_command() -> None:
    table = {"pattern": "*", "strategy": "command", "command": ["sh", "-c", "merge {path}"]}
    rules, wrong = rules_of([table], "config.toml")
    assert not rules and "{path} is a word of its own" in wrong[0]


def test_the_first_place_wins() -> None:
    def one(pattern: str, strategy: str, root: bytes = b"") -> Rule:
        return Rule(pattern, Strategy(strategy), "x", root)

    user = [one("keep/*.log", "ask"), one("*.log", "union")]
    near, far = [one("*", "local", b"a/b")], [one("*.md", "text", b"a"), one("*", "server", b"a")]
    order = in_order(user, near, far)
    found = {
        path: str(rule.strategy) if (rule := rule_for(path, order)) else None
        for path in (b"x.log", b"keep/x.log", b"a/b/x", b"a/b/x.log", b"a/x.md", b"a/x", b"ab/x")
    }
    assert list(found.values()) == ["union", "ask", "local", "union", "text", "server", None]


@pytest.mark.parametrize(
    ("strategy", "local", "server", "decision"),
    [
        ("newest", 2, 1, Resolution.LOCAL),
        ("newest", 1, 2, Resolution.SERVER),
        ("newest", 2, 2, None),
        ("local", 1, 2, Resolution.LOCAL),
        ("server", 2, 1, Resolution.SERVER),
        ("both", 2, 1, Resolution.BOTH),
        ("text", 2, 1, None),
        ("ask", 2, 1, None),
    ],
)
def test_choices(strategy: str, local: int, server: int, decision: Resolution | None) -> None:
    assert choice(Strategy(strategy), local, server) is decision


EVERY = "text union newest local server both command"
PREFERENCES = "newest local server both"


@pytest.mark.parametrize(
    ("kind", "local", "server", "strategies"),
    [
        (ConflictKind.UPDATE_UPDATE, Kind.FILE, Kind.FILE, EVERY),
        (ConflictKind.NAME_NAME, Kind.FILE, Kind.FILE, EVERY),
        (ConflictKind.NAME_NAME, Kind.SYMLINK, Kind.SYMLINK, PREFERENCES),
        (ConflictKind.NAME_NAME, Kind.FILE, Kind.SYMLINK, ""),
        (ConflictKind.NAME_NAME, Kind.FIFO, Kind.FIFO, ""),
        (ConflictKind.UPDATE_UPDATE, Kind.FILE, None, ""),
        (ConflictKind.ATTRIBUTE, Kind.FILE, Kind.FILE, "local server"),
        (ConflictKind.ATTRIBUTE, Kind.DIRECTORY, Kind.DIRECTORY, "local server"),
        (ConflictKind.UPDATE_REMOVE, Kind.FILE, None, "local both"),
        (ConflictKind.REMOVE_UPDATE, Kind.FILE, Kind.FILE, "server both"),
        (ConflictKind.RENAME_RENAME, Kind.FILE, Kind.FILE, ""),
        (ConflictKind.TYPE, Kind.FILE, Kind.DIRECTORY, ""),
        (ConflictKind.REFUSED, Kind.FILE, Kind.FILE, ""),
    ],
)
def test_what_rules_decide(
    kind: ConflictKind, local: Kind, server: Kind | None, strategies: str
) -> None:
    decided = {strategy for strategy in Strategy if decides(strategy, kind, local, server)}
    assert decided == set(strategies.split())
    assert not decided or kind in DECIDABLE


@pytest.mark.parametrize(
    ("template", "name", "expected", "second"),
    [
        ("", b"a.conf", b"a (conflict pc 2026-11-22).conf", b"a (conflict pc 2026-11-22 2).conf"),
        ("{name}.orig", b"a.conf", b"a.conf.orig", b"a.conf 2.orig"),
        ("{stem}.{host}{ext}", b"a.tar.gz", b"a.pc.tar.gz", b"a.pc 2.tar.gz"),
        (".{name}.{date}", b"a", b".a.2026-11-22", b".a.2026-11-22 2"),
    ],
)
def test_templates(template: str, name: bytes, expected: bytes, second: bytes) -> None:
    assert conflict_copy_name(name, "pc", "2026-11-22", template=template) == expected
    assert conflict_copy_name(name, "pc", "2026-11-22", {expected}, template=template) == second


@given(st.binary(min_size=1, max_size=255), st.sampled_from(["{name}.x", "{stem}-{date}{ext}"]))
def test_a_templates_name_is_a_name(name: bytes, template: str) -> None:
    name = name.replace(b"/", b"_").replace(b"\0", b"_")
    got = conflict_copy_name(name, "pc", "2026-11-22", template=template)
    assert 0 < len(got) <= 255 and got != name
    assert why_not_template(template) is None


@pytest.mark.parametrize(
    ("pattern", "path"),
    [
        ("*a" * 60 + "b", "a" * 255),
        ("**/a*" * 60 + "b", "a/" * 500),
        ("[a-z]*" * 60 + "!", "a" * 255),
        ("**" * 500 + "!", "a" * 255),
    ],
)
def test_no_pattern_takes_long(pattern: str, path: str) -> None:
    """Both come from the share, and the mount waits for the answer."""
    began = time.monotonic()
    assert not matches(pattern, path)
    assert time.monotonic() - began < 1.0


@given(
    st.lists(st.sampled_from(["a", "b", "/", "*", "**", "**/", "?", "[ab]", "[!a]", "[", "."])),
    st.text("ab/.[", max_size=8),
)
def test_patterns_mean_what_their_expressions_mean(parts: list[str], path: str) -> None:
    text = "".join(parts)
    assert Pattern(text).fits(path) is (re.fullmatch(expression(text), path, re.S) is not None)


def expression(text: str) -> str:
    """The same as a regular expression, which is short, and slow."""
    meant = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}
    tokens = re.findall(r"\*\*/|\*\*|\*|\?|\[[!^]?(?:\]?[^\]/]+|\])\]|.", text, re.S)
    done = (
        f"(?!/)[{token[1:-1].replace('!', '^', 1).replace('[', chr(92) + '[')}]"
        if len(token) > 1 and token[0] == "["
        else meant.get(token) or re.escape(token)
        for token in tokens
    )
    return "".join(done)


def test_the_share_has_a_limit_to_its_patterns() -> None:
    table = {"pattern": [f"*.{number}" for number in range(500)], "strategy": "text"}
    rules, wrong = rules_of([table], ".awayfs.toml", commands=False)
    assert len(rules) == 200 and "more than 200 patterns" in wrong[0]
    assert len(rules_of([table], "config.toml")[0]) == 500


@pytest.mark.parametrize("template", [".awayfs-{stem}.new", "x" * 60 + "{stem}"])
def test_templates_that_make_names_nobody_can_use(template: str) -> None:
    assert why_not_template(template)
