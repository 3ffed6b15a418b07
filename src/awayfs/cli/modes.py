"""``offline``, ``online``, ``auto`` and ``sync``."""

from __future__ import annotations

import datetime
import time
from typing import Any

import click

from awayfs.cli import show
from awayfs.cli.ask import (
    PATH,
    Failed,
    Scoped,
    each,
    in_question,
    json_option,
    request,
    shown,
    what_is_meant,
)
from awayfs.cli.progress import Bar
from awayfs.cli.until import moment
from awayfs.control import orders
from awayfs.control.messages import text_of
from awayfs.core.orders import Order, Scope

_SCOPE = click.argument("scope", required=False)


def _switch(method: str, meant: Scoped, as_json: bool, params: dict[str, Any] | None = None) -> int:
    """Switch every mount in scope; the exit status."""
    if meant.scope is not Scope.VOLUME:
        params = {**(params or {}), "scope": str(meant.scope)}
    replies, well = each(meant.mounts, method, params)
    one = meant.scope is Scope.VOLUME
    if as_json and (replies or not one):
        show.as_json(replies[0] if one else replies)
    elif not as_json:
        for reply in replies:
            click.echo(_line(reply))
        if not meant.mounts:
            click.echo(f"nothing of it is mounted; {_LATER[method]}")
    return 0 if well else 1


_LATER = {
    "offline": "what is mounted later begins offline",
    "online": "what is mounted later connects",
    "auto": "what is mounted later follows its link",
}


def _line(reply: dict[str, Any]) -> str:
    line = f"{show.printable(reply['mountpoint'])}  {reply.get('mode', '')}"
    if reply.get("until_ns"):
        line += f" until {show.moment(reply['until_ns'])}"
    if reply.get("cause"):
        line += f"  ({show.printable(reply['cause'])})"
    return line


def _order(meant: Scoped, order: Order | None) -> None:
    """What is said of more than one volume is written down for those that are mounted later."""
    if meant.scope is not Scope.VOLUME:
        orders.write(order, meant.scope, meant.server)


@click.command()
@_SCOPE
@click.option("--for", "duration", metavar="TIME", help="So long: 30m, 1h30m, 2d.")
@click.option("--until", metavar="TIME", help="Until then: 18:00, '2026-12-24 18:00'.")
@json_option
def offline(scope: str | None, duration: str | None, until: str | None, as_json: bool) -> int:
    """Work disconnected from now on, until 'online' or 'auto', or for a time.

    SCOPE is a mount point, server:HOST, or nothing for everything, also what is mounted later.
    """
    until_ns = moment(duration, until, datetime.datetime.now().astimezone())
    meant = what_is_meant(scope)
    _order(meant, Order(time.time_ns(), until_ns))
    return _switch("offline", meant, as_json, None if until_ns is None else {"until_ns": until_ns})


@click.command()
@_SCOPE
@click.option(
    "--accept-server",
    is_flag=True,
    help="Another host key or another root is meant: from now on it is this volume's server.",
)
@json_option
def online(scope: str | None, accept_server: bool, as_json: bool) -> int:
    """Connect now, and send what is pending, but for what 'reintegrate' holds back.

    SCOPE is a mount point, server:HOST, or nothing for everything. What is offline by another
    SCOPE's order stays so.
    """
    if accept_server and (scope is None or scope.startswith("server:")):
        raise click.UsageError("--accept-server needs a mount point: it is about one volume")
    meant = what_is_meant(scope)
    _order(meant, None)
    return _switch("online", meant, as_json, {"accept_server": True} if accept_server else None)


@click.command()
@_SCOPE
@json_option
def auto(scope: str | None, as_json: bool) -> int:
    """Let the link decide: disconnected when it is lost, connected when it is back.

    SCOPE is a mount point, server:HOST, or nothing for everything. What is offline by another
    SCOPE's order stays so.
    """
    meant = what_is_meant(scope)
    _order(meant, None)
    return _switch("auto", meant, as_json)


@click.command()
@click.argument("path", type=PATH, required=False)
@click.option("--wait", is_flag=True, help="Wait until the journal is empty or stuck.")
@click.option(
    "--accept-deletions",
    is_flag=True,
    help="What is gone on PATH's server was meant to go: end the stop.",
)
@json_option
def sync(path: bytes | None, wait: bool, accept_deletions: bool, as_json: bool) -> int:
    """Send pending changes now: all, or before all others what concerns PATH and what is below it.

    What PATH needs goes along. With '-o reintegrate=manual' nothing is sent but by this command.
    """
    if accept_deletions and path is None:
        raise click.UsageError("--accept-deletions needs a PATH: it is about one volume")
    replies, well = [], True
    what = "" if path is None else text_of(path)
    for mount, inner in in_question(None, path):
        params: dict[str, Any] = {"wait": wait} | ({} if inner is None else {"path": inner})
        if accept_deletions:
            params["accept_deletions"] = True
        try:
            with Bar("sync") as bar:
                reply = request(mount, "sync", params, what=what, on_progress=bar)
        except Failed as error:
            show.complain(error.message)
            well = False
            continue
        well = well and not (wait and _left(reply))
        if not as_json:
            _report(what if inner else shown(mount), reply, wait)
        replies.append({"volume": mount.volume, "mountpoint": shown(mount), **reply})
    if as_json and (replies or path is None):
        show.as_json(replies if path is None else replies[0])
    return 0 if well else 1


def _report(name: str, reply: dict[str, Any], wait: bool) -> None:
    """Say in a line what is left to send, which is an error when it was waited for."""
    pending, parked = reply.get("pending", 0), reply.get("parked", 0)
    conflicts, mode = reply.get("conflicts", 0), reply.get("mode", "")
    if wait and _left(reply):
        said = _stuck(pending, parked, conflicts, mode)
        if reply.get("full"):
            said = f"the server is full: {show.count(pending, 'change')} wait for room there"
        show.complain(f"{name}: {said}")
    elif pending:
        click.echo(show.printable(f"{name}: {show.count(pending, 'change')} pending ({mode})"))
    else:
        said = f"{name}: everything is sent"
        if mapped := reply.get("mapped", 0):
            said += f"; {show.count(mapped, 'open file')} may be mapped: sent again when closed"
        if held := reply.get("held", 0):
            said += f"; {show.held(held, reply.get('reintegrate', ''))}"
        if conflicts:
            said += f"; {show.count(conflicts, 'conflict')} to decide, see 'awayfs conflicts'"
        click.echo(show.printable(said))


def _left(reply: dict[str, Any]) -> bool:
    """Whether something could not be sent: the journal is stuck, or the server is away."""
    return bool(reply.get("stuck") or reply.get("pending") or reply.get("parked"))


def _stuck(pending: int, parked: int, conflicts: int, mode: str) -> str:
    left = f"{show.count(pending, 'change')} cannot be sent now"
    if conflicts:
        waiting = f", {show.count(pending, 'change')} behind" if pending else ""
        return f"{show.count(conflicts, 'conflict')} to decide{waiting}; see 'awayfs conflicts'"
    if parked:
        return f"{left}: {parked} parked; see 'awayfs journal list'"
    return f"{left}: {mode}; see 'awayfs status'"
