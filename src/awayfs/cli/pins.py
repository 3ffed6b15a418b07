"""``pin``, ``unpin``, ``pins`` and ``hoard``: what is to be here when the server is not."""

from __future__ import annotations

import shlex
from typing import Any

import click

from awayfs.cli import show
from awayfs.cli.ask import (
    PATH,
    Failed,
    each,
    full,
    in_question,
    json_option,
    located,
    request,
    scoped,
    shown,
)
from awayfs.cli.progress import Bar
from awayfs.control.messages import ControlError, text_of

_PATHS = click.argument("paths", type=PATH, nargs=-1, required=True)


@click.command()
@_PATHS
@click.option("--priority", type=click.IntRange(0, 1000), default=100, show_default=True)
@click.option("--no-walk", is_flag=True, help="Fetch nothing now.")
@json_option
def pin(paths: tuple[bytes, ...], priority: int, no_walk: bool, as_json: bool) -> int:
    """Keep PATHs here, with all that is below, and fetch them now."""
    params = {"priority": priority, "walk": not no_walk}
    return _for_each(paths, "pin", params, as_json, "pinned")


@click.command()
@_PATHS
@json_option
def unpin(paths: tuple[bytes, ...], as_json: bool) -> int:
    """Let PATHs be culled again when space is needed."""
    return _for_each(paths, "unpin", {}, as_json, "no longer pinned")


def _for_each(
    paths: tuple[bytes, ...], method: str, params: dict[str, Any], as_json: bool, verb: str
) -> int:
    """Ask for every path; one that fails does not keep the others from being asked."""
    replies, well = [], True
    for path in paths:
        name = text_of(path)
        try:
            mount, inner = located(path)
            with Bar(method) as bar:
                asked = {**params, "path": inner}
                reply = request(mount, method, asked, what=name, on_progress=bar)
        except (Failed, ControlError) as error:
            show.complain(str(error))
            well = False
            continue
        replies.append({"mountpoint": shown(mount), **reply, "path": inner})
        if not as_json:
            click.echo(show.printable(f"{name}: {verb}{_fetched(reply)}"))
        well = _all_fetched(name, reply) and well
    if as_json and (replies or len(paths) > 1):
        show.as_json(replies[0] if len(paths) == 1 else replies)
    return 0 if well else 1


def _fetched(reply: dict[str, Any]) -> str:
    if not reply.get("files"):
        return ""
    return f", {_here(reply)}"


def _here(reply: dict[str, Any]) -> str:
    """``files`` are here, of which so many ``bytes`` were fetched just now."""
    fetched = reply.get("bytes")
    told = f", {show.size(fetched)} fetched now" if fetched else ""
    return f"{show.count(reply.get('files', 0), 'file')} here{told}"


def _would_be_here(reply: dict[str, Any]) -> str:
    """``bytes`` are those of the files."""
    files = show.count(reply.get("files", 0), "file")
    return f"{files} ({show.size(reply.get('bytes', 0))}) would be here offline"


def _all_fetched(name: str, reply: dict[str, Any]) -> bool:
    failed = reply.get("failed") or []
    if failed:
        first = failed[0]
        show.complain(
            f"{name}: {show.count(len(failed), 'file')} could not be fetched: "
            f"{first.get('path')}: {first.get('why')}; try again with 'awayfs hoard'"
        )
    return not failed


@click.command()
@json_option
def pins(as_json: bool) -> int:
    """List what is pinned, and whether all of it is here."""
    replies, well = each(scoped(None), "pins")
    rows = [
        {"mountpoint": reply["mountpoint"], **item}
        for reply in replies
        for item in reply.get("pins", [])
    ]
    if as_json:
        show.as_json({"pins": rows})
    elif not rows:
        click.echo("nothing is pinned")
    else:
        lines = [
            (
                row.get("priority", ""),
                "yes" if row.get("complete") else f"{row.get('missing', 'some')} missing",
                f"{row['mountpoint']}/{row.get('path', '')}".rstrip("/"),
            )
            for row in rows
        ]
        show.table(("PRIORITY", "COMPLETE", "PATH"), lines, right=(0,))
    return 0 if well else 1


@click.command()
@click.argument("path", type=PATH, required=False)
@click.option("--check", is_flag=True, help="Only say what would be missing offline.")
@click.option("--why", is_flag=True, help="Say what speaks for having PATH here.")
@click.option("--suggest", is_flag=True, help="Say what was missing offline, and might be pinned.")
@json_option
def hoard(path: bytes | None, check: bool, why: bool, suggest: bool, as_json: bool) -> int:
    """Fetch what is pinned and not here yet; with PATH, everything below it."""
    if check + why + suggest > 1:
        raise click.UsageError("--check, --why and --suggest exclude each other")
    if why:
        if path is None:
            raise click.UsageError("--why needs a PATH")
        return _why(path, as_json)
    return _suggest(path, as_json) if suggest else _walk(path, check, as_json)


def _why(path: bytes, as_json: bool) -> int:
    mount, inner = located(path)
    reply = request(mount, "hoard_why", {"path": inner}, what=text_of(path))
    if as_json:
        show.as_json(reply)
        return 0
    lines = ["it is pinned"] if reply["pinned"] else []
    lines += ["it is left out of hoard walks by a setting"] if reply["left_out"] else []
    lines += [] if reply["learn"] else ["nothing is learned: learn is off"]
    lines += [f"{reason['text']} ({reason['score']:g})" for reason in reply["reasons"]]
    wanted = "is fetched" if reply["pinned"] else "is fetched ahead when there is room"
    if not reply["wanted"] and not reply["pinned"]:
        wanted = "is fetched when it is read, and not before"
    here = "here" if reply["here"] else f"not here: {(reply['missing'] or ['unknown'])[0]}"
    click.echo(show.printable(f"{text_of(path)}: {wanted}; {here}"))
    for line in lines:
        click.echo(f"  {show.printable(line)}")
    return 0


def _suggest(path: bytes | None, as_json: bool) -> int:
    rows, well = [], True
    for mount, _ in in_question(None, path):
        try:
            reply = request(mount, "hoard_suggest", {})
        except Failed as error:
            show.complain(error.message)
            well = False
            continue
        rows += [{"mountpoint": shown(mount), **item} for item in reply["suggestions"]]
    if as_json:
        show.as_json({"suggestions": rows})
    elif not rows:
        click.echo("nothing was missing offline")
    for row in () if as_json else rows:
        place = f"{row['mountpoint']}/{row['path']}"
        times = show.count(row["times"], "time")
        click.echo(show.printable(f"awayfs pin {shlex.quote(place)}   # was missing {times}"))
    return 0 if well else 1


def _walk(path: bytes | None, check: bool, as_json: bool) -> int:
    replies, well = [], True
    for mount, inner in in_question(None, path):
        params: dict[str, Any] = {"check": check} | ({} if inner is None else {"path": inner})
        try:
            with Bar("hoard") as bar:
                reply = request(mount, "hoard", params, on_progress=bar)
        except Failed as error:
            show.complain(error.message)
            well = False
            continue
        replies.append({"volume": mount.volume, "mountpoint": shown(mount), **reply})
        if not as_json:
            _report(replies[-1], check)
        well = _all_fetched(full(mount, inner or ""), reply) and well
    if as_json and (replies or path is None):
        show.as_json(replies if path is None else replies[0])
    return 0 if well else 1


def _report(reply: dict[str, Any], check: bool) -> None:
    name, missing = reply["mountpoint"], reply.get("missing") or []
    have = _would_be_here(reply) if check else _here(reply)
    click.echo(show.printable(f"{name}: {have}, {len(missing)} missing"))
    for item in missing:
        click.echo(f"  {show.printable(item.get('path'))}: {show.printable(item.get('why'))}")
