"""Which conflicts are decided by rule, and by which one.

A rule has a pattern and a strategy. Rules come from the user's configuration and, as defaults
and without commands, from ``.awayfs.toml`` files on the share. Where several apply, the first
one that fits wins, in this order: the user's rules for the volume, for the server, for all;
then those of the share, the nearest directory first. Within one place the order is that of
the file.

Patterns (``core.patterns``): one without a slash is about the name in any directory, one with a
slash about the path from where the rule counts. One that ends in a slash means everything inside.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

from awayfs.core.conflicts import ConflictKind, Resolution
from awayfs.core.naming import why_not_template
from awayfs.core.patterns import pattern as compiled
from awayfs.core.types import Kind

MOST_OF_SHARE = 200
"""Patterns of one file on the share: each conflict is held against all of them."""
TIME_LIMIT_S = 30.0
LONGEST_S = 3600.0


class Strategy(enum.StrEnum):
    """How a rule decides."""

    TEXT = "text"  # three ways, line by line; an unclean merge stays a conflict
    UNION = "union"  # the lines of both, for files that are appended to
    NEWEST = "newest"  # the later modification time
    LOCAL = "local"
    SERVER = "server"
    BOTH = "both"  # ours becomes a conflict copy
    COMMAND = "command"  # a program of the user's
    ASK = "ask"  # stays a conflict: an exception from rules that come later


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule. ``root`` is the directory that a share's rule counts in, else ``b""``.

    ``copy_name`` is the template of a conflict copy, ``command`` a program with arguments.
    """

    pattern: str
    strategy: Strategy
    source: str
    root: bytes = b""
    command: tuple[str, ...] = ()
    time_limit_s: float = TIME_LIMIT_S
    copy_name: str = ""


OPTIONS: Mapping[str, type | tuple[type, ...]] = {
    "pattern": (str, list),
    "strategy": str,
    "command": list,
    "time-limit": (int, float),
    "copy-name": str,
}


class BadRule(ValueError):
    """A rule that cannot be used; the message says which and why, in one line."""


def rules_of(
    tables: object, source: str, *, root: bytes = b"", commands: bool = True
) -> tuple[list[Rule], list[str]]:
    """Rules out of the value of ``merge`` in a TOML file, and what is wrong with the others.

    ``commands`` False: the share may choose among built-in strategies only.
    """
    if not isinstance(tables, list):
        return [], [f"{source}: write [[merge]], with two brackets"]
    rules: list[Rule] = []
    wrong: list[str] = []
    for number, table in enumerate(tables, 1):
        try:
            rules += _rules(table, source, root, commands)
        except BadRule as error:
            wrong.append(f"{source}: [[merge]] number {number}: {error}; it is ignored")
    if not commands and len(rules) > MOST_OF_SHARE:
        wrong.append(f"{source}: has more than {MOST_OF_SHARE} patterns; the others are ignored")
        del rules[MOST_OF_SHARE:]
    return rules, wrong


def _rules(table: object, source: str, root: bytes, commands: bool) -> list[Rule]:
    if not isinstance(table, dict):
        raise BadRule("is not a table")
    for name, value in table.items():
        if name not in OPTIONS:
            raise BadRule(f"there is no option {name!r}; known are {', '.join(OPTIONS)}")
        if not isinstance(value, OPTIONS[name]) or isinstance(value, bool):
            raise BadRule(f"{name} has a value of the wrong type")
    strategy = _strategy(table, commands)
    rule = Rule(
        pattern="",
        strategy=strategy,
        source=source,
        root=root,
        command=_command(table, strategy, commands),
        time_limit_s=_time_limit(table),
        copy_name=_copy_name(table),
    )
    patterns = table.get("pattern")
    if not patterns:
        raise BadRule("has no pattern")
    named = [patterns] if isinstance(patterns, str) else patterns
    return [_with_pattern(rule, pattern) for pattern in named]


def _strategy(table: dict[str, Any], commands: bool) -> Strategy:
    name = table.get("strategy")
    if name is None:
        raise BadRule("has no strategy")
    try:
        strategy = Strategy(name)
    except ValueError:
        raise BadRule(f"there is no strategy {name!r}; known are {', '.join(Strategy)}") from None
    if strategy is Strategy.COMMAND and not commands:
        raise BadRule("commands are taken from your own configuration only, never from the share")
    return strategy


def _command(table: dict[str, Any], strategy: Strategy, commands: bool) -> tuple[str, ...]:
    command = table.get("command", [])
    if command and not commands:
        raise BadRule("commands are taken from your own configuration only, never from the share")
    if not all(isinstance(part, str) and "\0" not in part for part in command):
        raise BadRule("command is a list of words")
    if any("{path}" in part and part != "{path}" for part in command):
        raise BadRule("{path} is a word of its own: a name must not become a part of a command")
    if (strategy is Strategy.COMMAND) != bool(command):
        raise BadRule('command and strategy = "command" go together')
    return tuple(command)


def _time_limit(table: dict[str, Any]) -> float:
    limit = float(table.get("time-limit", TIME_LIMIT_S))
    if not 0 < limit <= LONGEST_S:
        raise BadRule(f"time-limit is in seconds, more than 0 and at most {LONGEST_S:g}")
    return limit


def _copy_name(table: dict[str, Any]) -> str:
    template = str(table.get("copy-name", ""))
    wrong = why_not_template(template) if template else None
    if wrong is not None:
        raise BadRule(f"copy-name {wrong}")
    return template


def _with_pattern(rule: Rule, pattern: object) -> Rule:
    if not isinstance(pattern, str) or not pattern.strip("/"):
        raise BadRule('a pattern is a text such as "*.txt" or "notes/**"')
    if pattern.startswith("/"):
        pattern = pattern[1:]
        pattern = pattern if "/" in pattern else "./" + pattern
    try:
        compiled(pattern.removeprefix("./"))
    except re.error as error:
        raise BadRule(f"the pattern {pattern!r} is not understood: {error}") from None
    return replace(rule, pattern=pattern)


# -- which one ------------------------------------------------------------------------------


def rule_for(path: bytes, rules: Iterable[Rule]) -> Rule | None:
    """The first rule that fits a path from the volume's root."""
    return next((rule for rule in rules if fits(rule, path)), None)


def fits(rule: Rule, path: bytes) -> bool:
    """Whether a rule is about a path."""
    if rule.root:
        if not path.startswith(rule.root + b"/"):
            return False
        path = path[len(rule.root) + 1 :]
    return matches(rule.pattern, path.decode("utf-8", "surrogateescape"))


def matches(pattern: str, path: str) -> bool:
    """Whether a pattern fits a relative path; one without a slash, its last name."""
    anchored = pattern.startswith("./")
    pattern = pattern.removeprefix("./")
    if "/" not in pattern and not anchored:
        path = path.rpartition("/")[2]
    return compiled(pattern).fits(path)


def fits_or_below(pattern: str, path: str) -> bool:
    """Whether a pattern fits a relative path or a directory above it; read once, however deep."""
    anchored = pattern.startswith("./")
    pattern = pattern.removeprefix("./")
    if "/" in pattern or anchored:
        return bool(path) and compiled(pattern).fits_or_below(path)
    return any(_name_fits(pattern, name) for name in path.split("/"))


@lru_cache(maxsize=1 << 15)
def _name_fits(pattern: str, name: str) -> bool:
    """What lies in one directory has the names above it in common."""
    return bool(name) and compiled(pattern).fits(name)


def has_pattern(text: str) -> bool:
    """Whether a text is meant as a pattern rather than as one name."""
    return any(letter in text for letter in "*?[")


# -- whether it may -------------------------------------------------------------------------

_CONTENT = (Strategy.TEXT, Strategy.UNION, Strategy.COMMAND)
_PREFERENCES = (Strategy.NEWEST, Strategy.LOCAL, Strategy.SERVER, Strategy.BOTH)
_TWO_CONTENTS = (ConflictKind.UPDATE_UPDATE, ConflictKind.NAME_NAME)
_ONE_MEANING: Mapping[str, tuple[Strategy, ...]] = {
    ConflictKind.ATTRIBUTE: (Strategy.LOCAL, Strategy.SERVER),
    ConflictKind.UPDATE_REMOVE: (Strategy.LOCAL, Strategy.BOTH),
    ConflictKind.REMOVE_UPDATE: (Strategy.SERVER, Strategy.BOTH),
}
"""What a strategy can only mean in one way. That something is removed is never a rule's doing."""
DECIDABLE = (*_TWO_CONTENTS, *_ONE_MEANING)
"""The kinds of conflicts that some rule decides."""


def needs_base(strategy: Strategy, kind: str) -> bool:
    """Whether a strategy cannot do without the base's content."""
    return strategy in (Strategy.TEXT, Strategy.UNION) and kind == ConflictKind.UPDATE_UPDATE


def makes_content(strategy: Strategy) -> bool:
    """Whether a strategy makes new content, for which all variants must be whole."""
    return strategy in _CONTENT


def decides(strategy: Strategy, kind: str, local: Kind | None, server: Kind | None) -> bool:
    """Whether a strategy decides such a conflict; ``local`` and ``server`` are what stands there.

    Of two files, each does; of two symlinks, those that prefer a side; the rest is a person's.
    """
    if kind in _TWO_CONTENTS and local is server:
        if local is Kind.FILE:
            return strategy is not Strategy.ASK
        return local is Kind.SYMLINK and strategy in _PREFERENCES
    return strategy in _ONE_MEANING.get(kind, ())


def choice(strategy: Strategy, local_ns: int, server_ns: int) -> Resolution | None:
    """What a strategy that makes no content decides; None for none.

    Equal times decide nothing.
    """
    if strategy is Strategy.NEWEST:
        if local_ns == server_ns:
            return None
        return Resolution.LOCAL if local_ns > server_ns else Resolution.SERVER
    simple = {
        Strategy.LOCAL: Resolution.LOCAL,
        Strategy.SERVER: Resolution.SERVER,
        Strategy.BOTH: Resolution.BOTH,
    }
    return simple.get(strategy)


def in_order(*scopes: Sequence[Rule]) -> list[Rule]:
    """Rules of several places as one list, the first place first."""
    return [rule for scope in scopes for rule in scope]
