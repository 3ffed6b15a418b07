"""``journal``: what was changed here and is not on the server yet."""

from __future__ import annotations

import os
import tempfile
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
from awayfs.cli.progress import Bar
from awayfs.control import mountinfo
from awayfs.control.client import MountInfo
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
@click.option("--with-others", is_flag=True, help="Also what depends on it.")
@click.option("--dry-run", "-n", is_flag=True, help="Only say what would be given up.")
@mount_option
@json_option
def drop(
    number: int, yes: bool, with_others: bool, dry_run: bool, place: bytes | None, as_json: bool
) -> None:
    """Give up record N, and what depends on it: these changes will never be sent.

    What is inside a directory depends on its creation. If others depend on it, all of them are
    named, and go only with --with-others, or when a person says yes.

    Content that is given up is kept in the history for a while (awayfs resolve --undo).
    """
    mount = the_mount(place)
    what = f"record {number}"
    planned = request(mount, "journal_drop", {"seq": number, "dry_run": True}, what=what)
    others = [seq for seq in planned["seqs"] if seq != number]
    if not as_json:
        for path in planned["paths"]:
            click.echo(show.printable(full(mount, path)))
        if others:
            click.echo(f"with it: {', '.join(map(str, others))}")
    if not dry_run:
        asked = sure(
            f"Give up {show.count(len(planned['seqs']), 'record')} of {shown(mount)}?", yes
        )
        params = {"seq": number, "others": with_others or asked}
        planned = request(mount, "journal_drop", params, what=what)
    if as_json:
        show.as_json({"seq": number, "dry_run": dry_run, **planned})
    elif not dry_run:
        more = f", with {show.count(len(others), 'other')}" if others else ""
        click.echo(f"record {number} is dropped{more}")


@journal.command("export")
@click.argument("file", type=PATH)
@mount_option
@json_option
def export(file: bytes, place: bytes | None, as_json: bool) -> None:
    """Write all records and their data into FILE, a new archive (.tar, .tar.gz or .tar.zst)."""
    from awayfs.cli.archive import export as write
    from awayfs.cli.session import described

    target, inside = mountinfo.locate(file, mountinfo.read())
    name = text_of(file)
    if inside is not None:
        raise Failed(f"{name}: is inside an awayfs mount; choose a file on a local disk")
    if os.path.lexists(target):
        raise Failed(f"{name}: exists; choose another name")
    mount = the_mount(place)
    changes = [line for change in _changes(mount) for line in described(mount, change)]
    try:
        done = write(mount, target, changes)
    except OSError as error:
        raise Failed(f"{name}: cannot be written: {error.strerror or error}") from None
    if as_json:
        show.as_json({"file": text_of(target), **vars(done)})
        return
    for path in done.missing:
        show.complain(f"{full(mount, path)}: only the part that is here is exported")
    facts = f"{show.count(done.records, 'record')}, {show.count(done.files, 'file')}"
    click.echo(show.printable(f"{name}: {facts}, {show.size(done.bytes)}"))


def _changes(mount: MountInfo) -> list[dict[str, Any]]:
    from awayfs.cli.session import Gathered

    changes: list[dict[str, Any]] = []
    request(mount, "diff", on_progress=Gathered(changes))
    return changes


@journal.command("import")
@click.argument("file", type=PATH)
@click.option("--dry-run", "-n", is_flag=True, help="Check all, and say what would conflict.")
@click.option("--force", is_flag=True, help="Also when it was exported from another volume.")
@mount_option
@json_option
def import_(file: bytes, dry_run: bool, force: bool, place: bytes | None, as_json: bool) -> int:
    """Make the changes in FILE, an exported journal, again in this mount."""
    from awayfs.cli.unpack import shown_report, unpack

    source, inside = mountinfo.locate(file, mountinfo.read())
    if inside is not None:
        raise Failed(f"{text_of(file)}: is inside an awayfs mount; copy it to a local disk")
    mount = the_mount(place)
    with tempfile.TemporaryDirectory(prefix="awayfs-import-") as directory, Bar("importing") as bar:
        unpack(source, directory)
        params = {"directory": directory, "dry_run": dry_run, "force": force}
        answer = request(mount, "journal_import", params, what=text_of(file), on_progress=bar)
    if as_json:
        show.as_json({"file": text_of(source), "dry_run": dry_run, **answer})
    else:
        for line in shown_report(answer):
            click.echo(show.printable(line))
        verb = "would be made again" if dry_run else "made again"
        click.echo(f"{show.count(answer['applied'], 'change')} {verb}")
    return 1 if answer["skipped"] else 0
