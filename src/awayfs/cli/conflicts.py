"""``conflicts``, ``resolve`` and ``why``: where the two sides differ."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import click

from awayfs.cli import show
from awayfs.cli.ask import (
    PATH,
    Failed,
    about,
    in_question,
    json_option,
    request,
    shown,
)
from awayfs.control import mountinfo, paths
from awayfs.control.messages import text_of

_VARIANTS = ("base", "local", "server")


@click.command()
@click.argument("path", type=PATH, required=False)
@json_option
def conflicts(path: bytes | None, as_json: bool) -> int:
    """List conflicts: all, or those at and below PATH."""
    found, well = _collect("conflicts", "conflicts", path)
    if as_json:
        show.as_json({"conflicts": found})
    elif not found and well:
        click.echo("no conflicts")
    else:
        for conflict in found:
            _show(conflict)
    return 0 if well else 1


def _collect(method: str, key: str, path: bytes | None) -> tuple[list[dict[str, Any]], bool]:
    """The items of all mounts in question, each with its mount point."""
    found, well = [], True
    for mount, inner in in_question(None, path):
        what = text_of(path) if path is not None else ""
        try:
            reply = request(mount, method, {} if inner is None else {"path": inner}, what=what)
        except Failed as error:
            show.complain(error.message)
            well = False
            continue
        found += [{"mountpoint": shown(mount), **item} for item in reply.get(key, [])]
    return found, well


def _show(conflict: dict[str, Any]) -> None:
    path = f"{conflict['mountpoint']}/{conflict.get('path') or ''}"
    when = show.ago(conflict.get("detected_ns"))
    click.echo(f"{show.printable(path)}  {show.printable(conflict.get('kind'))}, {when}")
    if conflict.get("note"):
        click.echo(f"  {show.printable(conflict['note'])}")
    show.facts([(name, _variant(conflict, name)) for name in _VARIANTS])


def _variant(conflict: dict[str, Any], name: str) -> str:
    variant = conflict.get(name)
    if not variant:
        return "does not exist"
    text = f"{show.size(variant.get('size'))}, changed {show.ago(variant.get('mtime_ns'))}"
    if not variant.get("available"):
        return f"{text}, content not here"
    place = variant.get("path")
    return f"{text}, {conflict['mountpoint']}/{place}" if place else text


@click.command()
@click.argument("path", type=PATH)
@click.option(
    "--keep", type=click.Choice(("local", "server", "both", "base")), help="Which variant stays."
)
@click.option("--with", "file", type=PATH, metavar="FILE", help="A file with the merged content.")
@json_option
def resolve(path: bytes, keep: str | None, file: bytes | None, as_json: bool) -> None:
    """Resolve the conflict at PATH."""
    if (keep is None) == (file is None):
        raise click.UsageError("give either --keep local|server|both|base or --with FILE")
    if file is None:
        reply = about(path, "resolve", {"keep": keep})
    else:
        with _outside(file) as readable:
            reply = about(path, "resolve", {"with": readable})
    if as_json:
        show.as_json(reply)
        return
    line = f"{text_of(path)}: resolved, kept {reply.get('kept') or keep or text_of(file or b'')}"
    if reply.get("copy"):
        line += f"; the other one is {reply['copy']}"
    click.echo(show.printable(line))


@contextmanager
def _outside(file: bytes) -> Iterator[str]:
    """A name of the file that the daemon can read: never inside a mount, maybe its own."""
    place, inside = mountinfo.locate(file, mountinfo.read())
    if inside is None:
        if not os.path.isfile(place):
            raise Failed(f"{text_of(file)}: is not a file; give the file with the merged content")
        yield text_of(place)
        return
    with tempfile.TemporaryDirectory(prefix="resolve-", dir=paths.ensure_runtime()) as directory:
        copy = os.path.join(directory, "content")
        try:
            shutil.copyfile(place, os.fsencode(copy))
        except OSError as error:
            raise Failed(f"{text_of(file)}: cannot be read: {error.strerror}") from None
        yield copy


@click.command()
@click.argument("path", type=PATH)
@json_option
def why(path: bytes, as_json: bool) -> None:
    """Say why the last operation on PATH failed, and what would help."""
    reply = about(path, "why")
    if as_json:
        show.as_json(reply)
        return
    text = reply.get("text") or "nothing has failed"
    name = f" ({reply['error']})" if reply.get("error") else ""
    click.echo(show.printable(f"{text_of(path)}: {text}{name}"))
    if reply.get("since_ns"):
        click.echo(f"  since {show.ago(reply['since_ns'])}")
    for line in reply.get("help") or []:
        click.echo(f"  - {show.printable(line)}")
