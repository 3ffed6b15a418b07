"""``conflicts`` and ``why``: where the two sides differ."""

from __future__ import annotations

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
        for complaint in reply.get("settings", []):
            show.complain(complaint)
        found += [{"mountpoint": shown(mount), **item} for item in reply.get(key, [])]
    return found, well


def _show(conflict: dict[str, Any]) -> None:
    path = f"{conflict['mountpoint']}/{conflict.get('path') or ''}"
    when = show.ago(conflict.get("detected_ns"))
    click.echo(f"{show.printable(path)}  {show.printable(conflict.get('kind'))}, {when}")
    if conflict.get("note"):
        click.echo(f"  {show.printable(conflict['note'])}")
    modes = {variant.get("mode") for name in _VARIANTS if (variant := conflict.get(name))}
    differ = len(modes - {None}) > 1
    show.facts([(name, _variant(conflict, name, with_mode=differ)) for name in _VARIANTS])


def _variant(conflict: dict[str, Any], name: str, *, with_mode: bool) -> str:
    variant = conflict.get(name)
    if not variant:
        return "does not exist"
    if variant.get("size") is None:
        return "not here"
    text = f"{show.size(variant.get('size'))}, changed {show.ago(variant.get('mtime_ns'))}"
    if with_mode and variant.get("mode") is not None:
        text += f", mode {variant['mode']:o}"
    if variant.get("named"):
        text += f", named {variant['named']} on the server"
    if not variant.get("available"):
        return f"{text}, content not here"
    place = variant.get("path")
    return f"{text}, {conflict['mountpoint']}/{place}" if place else text


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
    if reply.get("mode") and reply.get("cause"):
        since = show.ago(reply.get("mode_since_ns"))
        click.echo(show.printable(f"  the volume is {reply['mode']} ({since}): {reply['cause']}"))
    for line in reply.get("help") or []:
        click.echo(f"  - {show.printable(line)}")
