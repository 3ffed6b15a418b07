"""``journal``: what was changed here and is not on the server yet."""

from __future__ import annotations

import os
from typing import Any

import click

from awayfs.cli import show
from awayfs.cli.ask import (
    PATH,
    Failed,
    each,
    full,
    json_option,
    mount_option,
    request,
    scoped,
    shown,
    sure,
    the_mount,
)
from awayfs.control import mountinfo
from awayfs.control.messages import text_of


@click.group()
def journal() -> None:
    """The changes made here that the server does not have yet."""


@journal.command("list")
@mount_option
@json_option
def list_(place: bytes | None, as_json: bool) -> int:
    """List the records, in the order they will be sent."""
    mounts = scoped(None) if place is None else [the_mount(place)]
    replies, well = each(mounts, "journal_list")
    records = [
        {"mountpoint": reply["mountpoint"], **record}
        for reply in replies
        for record in reply.get("records", [])
    ]
    if as_json:
        show.as_json({"records": records})
    elif not records:
        click.echo("the journal is empty")
    else:
        rows = [_row(record) for record in records]
        show.table(("N", "KIND", "STATE", "SIZE", "WHEN", "PATH"), rows, right=(0, 3))
    return 0 if well else 1


def _row(record: dict[str, Any]) -> tuple[Any, ...]:
    path = f"{record['mountpoint']}/{record.get('path') or ''}".rstrip("/")
    if record.get("to_path"):
        path += f" -> {record['to_path']}"
    if record.get("reason"):
        path += f"  ({record['reason']})"
    size = show.size(record["size"]) if record.get("size") is not None else ""
    state = record.get("state", "")
    when = show.ago(record.get("at_ns"))
    return (record.get("seq"), record.get("kind"), state, size, when, path)


@journal.command("show")
@click.argument("number", type=click.IntRange(min=0), metavar="N")
@mount_option
@json_option
def show_(number: int, place: bytes | None, as_json: bool) -> None:
    """Show record N with all that is known of it."""
    reply = request(the_mount(place), "journal_show", {"seq": number}, what=f"record {number}")
    if as_json:
        show.as_json(reply)
        return
    pairs: list[tuple[str, str]] = []
    for name, value in reply.items():
        if name == "detail" and isinstance(value, dict):
            pairs += [(key, _value(key, detail)) for key, detail in value.items()]
        elif value not in (None, ""):
            pairs.append((name, _value(name, value)))
    show.facts(pairs, indent="")


def _value(name: str, value: Any) -> str:
    if name.endswith("_ns") and isinstance(value, int):
        return show.ago(value)
    return show.size(value) if name == "size" else str(value)


@journal.command("drop")
@click.argument("number", type=click.IntRange(min=0), metavar="N")
@click.option("--yes", "-y", is_flag=True, help="Do not ask.")
@mount_option
@json_option
def drop(number: int, yes: bool, place: bytes | None, as_json: bool) -> None:
    """Give up record N: its change will never be sent."""
    mount = the_mount(place)
    sure(f"Give up record {number} of {shown(mount)} for good?", yes)
    reply = request(mount, "journal_drop", {"seq": number}, what=f"record {number}")
    if as_json:
        show.as_json({"seq": number, **reply})
    else:
        click.echo(f"record {number} is dropped")


@journal.command("export")
@click.argument("file", type=PATH)
@mount_option
@json_option
def export(file: bytes, place: bytes | None, as_json: bool) -> None:
    """Write all records and their data into FILE, a new file."""
    target, inside = mountinfo.locate(file, mountinfo.read())
    name = text_of(file)
    if inside is not None:
        raise Failed(f"{name}: is inside an awayfs mount; choose a file on a local disk")
    if os.path.lexists(target):
        raise Failed(f"{name}: exists; choose another name")
    mount = the_mount(place)
    reply = request(mount, "journal_export", {"file": text_of(target)}, what=name)
    if as_json:
        show.as_json({"file": text_of(target), **reply})
    else:
        click.echo(show.printable(f"the journal of {full(mount, '')} is in {name}"))
