"""``diff`` and ``discard``: what this machine changed, and going back."""

from __future__ import annotations

import base64
import os
import stat
import sys
from collections.abc import Iterator
from typing import Any, Final

import click

from awayfs.cli import show
from awayfs.cli.ask import PATH, Failed, in_question, json_option, located, request, shown, sure
from awayfs.cli.differences import SIZE_MAX, Compared, compare, harmless
from awayfs.cli.progress import Bar
from awayfs.control.client import MountInfo
from awayfs.control.messages import text_of

WORDS: Final = {
    "A": "added",
    "D": "removed",
    "R": "renamed",
    "T": "type",
    "M": "modified",
    "P": "properties",
}
_COLOURS: Final = {"+": "green", "-": "red", "@": "cyan"}
_ESCAPED: Final = {"\\": "\\\\", '"': '\\"'}
_CHUNK: Final = 1 << 20
_SHOWN: Final = 20


@click.command()
@click.argument("path", type=PATH, required=False)
@click.option("--name-only", "form", flag_value="names", help="Only which paths differ, and how.")
@click.option("--stat", "form", flag_value="stat", help="How many lines and bytes changed.")
@click.option("--unified", "form", flag_value="unified", help="Only the content.")
@json_option
def diff(path: bytes | None, form: str | None, as_json: bool) -> int:
    """Show what was changed here and is not on the server: local against base.

    Letters say how a path differs: A added, D removed, R renamed, T another type, M other
    content, P other properties (mode, owner, times, extended attributes).
    """
    found, well = _collect(path)
    if as_json:
        show.as_json({"changes": [{**_facts(m, c)} for m, c in found]})
    elif not found and well:
        click.echo("nothing differs")
    elif form == "stat":
        _show_stat(found)
    else:
        _show(found, names=form != "unified", content=form != "names")
    return 0 if well else 1


def _show(found: list[tuple[MountInfo, dict[str, Any]]], *, names: bool, content: bool) -> None:
    if names:
        for mount, change in found:
            for line in described(mount, change):
                click.echo(line)
    if content:
        for mount, change in found:
            for line in _content(mount, change):
                _coloured(line)


def _facts(mount: MountInfo, change: dict[str, Any]) -> dict[str, Any]:
    words = [WORDS[letter] for letter in change["letters"]]
    return {"mountpoint": shown(mount), "changes": words, **change}


def _collect(path: bytes | None) -> tuple[list[tuple[MountInfo, dict[str, Any]]], bool]:
    found: list[tuple[MountInfo, dict[str, Any]]] = []
    well = True
    for mount, inner in in_question(None, path):
        changes: list[dict[str, Any]] = []
        what = text_of(path) if path is not None else ""
        try:
            params = {} if inner is None else {"path": inner}
            request(mount, "diff", params, what=what, on_progress=Gathered(changes))
        except Failed as error:
            show.complain(error.message)
            well = False
            continue
        found += [(mount, change) for change in changes]
    return found, well


class Gathered:
    """Takes the changes out of what a daemon tells on the way."""

    def __init__(self, changes: list[dict[str, Any]]) -> None:
        self._changes = changes

    def __call__(self, event: dict[str, Any]) -> None:
        self._changes += event.get("changes", ())


# -- names --------------------------------------------------------------------------------


def quoted(path: str) -> str:
    """A path as one word that nothing can hide in."""
    escaped = "".join(_ESCAPED.get(char) or show.printable(char) for char in path)
    return path if escaped == path and path == path.strip() else f'"{escaped}"'


def described(mount: MountInfo, change: dict[str, Any]) -> Iterator[str]:
    """One path: its letters, its name, and what does not show in the content."""
    place = quoted(_inside(mount, change["path"]))
    if change.get("from_path") is not None:
        place = f"{quoted(_inside(mount, change['from_path']))} -> {place}"
    notes = list(_notes(change))
    note = f"  ({', '.join(notes)})" if notes else ""
    yield f"{change['letters']:<3} {place}{show.printable(note) if note else ''}"


def _inside(mount: MountInfo, path: str) -> str:
    return os.path.join(shown(mount), path) if path else shown(mount)


def _notes(change: dict[str, Any]) -> Iterator[str]:
    if "T" in change["letters"]:
        yield f"{change['base_kind']} -> {change['kind']}"
    elif change["kind"] not in ("file",):
        yield change["kind"]
    if change["kind"] == "symlink":
        yield from _link_notes(change)
    for name, (before, after) in change.get("attributes", {}).items():
        yield f"{name.removesuffix('_ns')} {_value(name, before)} -> {_value(name, after)}"
    for name, what in change.get("xattrs", {}).items():
        yield f"{name} {what}"
    if change.get("conflicted"):
        yield "in conflict"


def _link_notes(change: dict[str, Any]) -> Iterator[str]:
    before, after = change.get("base_target"), change.get("target")
    if before is not None and after is not None and before != after:
        yield f"{quoted(before)} -> {quoted(after)}"
    elif after is not None or before is not None:
        yield f"to {quoted(after if after is not None else before or '')}"


def _value(name: str, value: int) -> str:
    if name == "mode":
        return f"{stat.S_IMODE(value):04o}"
    if not name.endswith("_ns"):
        return str(value)
    import time

    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(value // 1_000_000_000))


# -- content ------------------------------------------------------------------------------


def _content(mount: MountInfo, change: dict[str, Any]) -> Iterator[str]:
    """The unified difference of one path, or in one line why there is none."""
    if not _has_content(change):
        return
    compared = _compared(mount, change)
    before = quoted("a/" + (change.get("from_path") or change["path"]))
    after = quoted("b/" + change["path"])
    if compared.why:
        yield f"{after[2:] if after.startswith('b/') else after}: {compared.why}"
        return
    yield f"--- {'/dev/null' if _is_new(change) else before}"
    yield f"+++ {'/dev/null' if 'D' in change['letters'] else after}"
    yield from map(harmless, compared.lines)


def _has_content(change: dict[str, Any]) -> bool:
    kinds = (change["kind"], change.get("base_kind"))
    return "file" in kinds and bool(set(change["letters"]) & set("AMDT"))


def _is_new(change: dict[str, Any]) -> bool:
    return "A" in change["letters"] or change.get("base_kind") != "file"


def _compared(mount: MountInfo, change: dict[str, Any]) -> Compared:
    sides: list[bytes] = []
    is_file = {"base": change.get("base_kind") == "file", "local": change["kind"] == "file"}
    if "D" in change["letters"]:
        is_file["local"] = False
    for which, node, size in (
        ("base", change.get("base_node"), change.get("base_size")),
        ("local", change.get("node"), change.get("size")),
    ):
        if node is None or not is_file[which]:
            sides.append(b"")
            continue
        if (size or 0) > SIZE_MAX:
            return Compared(why=f"too large to show ({show.size(size)})")
        try:
            sides.append(read_content(mount, node, which, size or 0))
        except Failed:
            side = "the base's content" if which == "base" else "all of the content"
            return Compared(why=f"{side} is not here")
    return compare(*sides)


def read_content(mount: MountInfo, node: int, which: str, size: int) -> bytes:
    """All of a variant's content; ``Failed`` where it is not here."""
    pieces: list[bytes] = []
    offset = 0
    while offset < size:
        params = {"node": node, "which": which, "offset": offset, "length": _CHUNK}
        data = base64.b64decode(request(mount, "session_read", params)["data"])
        if not data:
            break
        pieces.append(data)
        offset += len(data)
    return b"".join(pieces)


def _coloured(line: str) -> None:
    """Print a line of a difference; with colours on a terminal that wants them."""
    head = line.startswith(("---", "+++"))
    colour = None if head else _COLOURS.get(line[:1])
    if not sys.stdout.isatty() or os.environ.get("NO_COLOR"):
        click.echo(line, color=False)
    else:
        click.echo(click.style(line, fg=colour, bold=head))


def _show_stat(found: list[tuple[MountInfo, dict[str, Any]]]) -> None:
    added = removed = 0
    rows: list[tuple[str, str, str]] = []
    for mount, change in found:
        text = ""
        if _has_content(change):
            compared = _compared(mount, change)
            added, removed = added + compared.added, removed + compared.removed
            sizes = f"{show.size(change.get('base_size') or 0)} -> {show.size(change['size'] or 0)}"
            text = f"{compared.why}, {sizes}" if compared.why else _counted(compared)
        rows.append((change["letters"], quoted(_inside(mount, change["path"])), text))
    width = max(len(path) for _, path, _ in rows)
    for letters, path, text in rows:
        click.echo(f"{letters:<3} {path.ljust(width)}  {text}".rstrip())
    paths = show.count(len(rows), "path")
    click.echo(f"{paths}, {show.count(added, 'line')} added, {show.count(removed, 'line')} removed")


def _counted(compared: Compared) -> str:
    return f"+{compared.added} -{compared.removed}"


# -- going back ---------------------------------------------------------------------------


@click.command()
@click.argument("paths", type=PATH, nargs=-1, required=True, metavar="PATH...")
@click.option("--all", "everything", is_flag=True, help="PATH is a mount point: all changes.")
@click.option("--dry-run", "-n", is_flag=True, help="Only say what would be discarded.")
@click.option("--yes", "-y", is_flag=True, help="Do not ask.")
@json_option
def discard(
    paths: tuple[bytes, ...], everything: bool, dry_run: bool, yes: bool, as_json: bool
) -> None:
    """Drop the local changes of PATHs, with all below them, and take the server's version.

    Offline it is the base's version: what the server had when it was last seen. Content that is
    dropped is kept in the history for a while (awayfs resolve --undo).
    """
    answers = []
    for mount, inner in _by_mount(paths):
        params = _discard_params(mount, inner, everything)
        what = text_of(paths[0]) if len(paths) == 1 else shown(mount)
        if dry_run or (not yes and sys.stdin.isatty()):
            planned = _ask(mount, {**params, "dry_run": True}, what)
            if not as_json:
                _show_planned(mount, planned)
            if dry_run:
                answers.append({"mountpoint": shown(mount), **planned, "dry_run": True})
                continue
            sure(f"Drop {show.count(planned['paths'], 'change')} of {shown(mount)}?", yes)
        answer = _ask(mount, params, what)
        answers.append({"mountpoint": shown(mount), **answer, "dry_run": False})
        if not as_json:
            _show_discarded(mount, answer)
    if as_json:
        show.as_json({"discarded": answers})


def _by_mount(paths: tuple[bytes, ...]) -> list[tuple[MountInfo, list[str]]]:
    found: dict[bytes, tuple[MountInfo, list[str]]] = {}
    for path in paths:
        mount, inner = located(path)
        found.setdefault(mount.mountpoint, (mount, []))[1].append(inner)
    return list(found.values())


def _discard_params(mount: MountInfo, inner: list[str], everything: bool) -> dict[str, Any]:
    if everything:
        if inner != [""]:
            raise click.UsageError("--all wants the mount point alone, to discard everything")
        return {"all": True}
    if "" in inner:
        raise click.UsageError(f"{shown(mount)} is a mount point; give --all to discard everything")
    return {"paths": inner}


def _ask(mount: MountInfo, params: dict[str, Any], what: str) -> dict[str, Any]:
    changes: list[dict[str, Any]] = []
    gather = Gathered(changes)
    with Bar("discarding") as bar:

        def on_progress(event: dict[str, Any]) -> None:
            gather(event)
            if "total" in event:
                bar(event)

        answer = request(mount, "discard", params, what=what, on_progress=on_progress)
    return {**answer, "changes": changes}


def _show_planned(mount: MountInfo, planned: dict[str, Any]) -> None:
    for change in planned["changes"][:_SHOWN]:
        for line in described(mount, change):
            click.echo(line)
    if len(planned["changes"]) > _SHOWN:
        click.echo(f"and {len(planned['changes']) - _SHOWN} more")
    for path in planned.get("also", ())[:_SHOWN]:
        click.echo(f"also {quoted(_inside(mount, path))} comes back")


def _show_discarded(mount: MountInfo, answer: dict[str, Any]) -> None:
    if not answer["records"]:
        click.echo(show.printable(f"{shown(mount)}: nothing was changed"))
        return
    records = show.count(answer["records"], "record")
    left = show.count(answer.get("pending", 0), "record")
    click.echo(show.printable(f"{shown(mount)}: {records} discarded, {left} left"))
