"""``offline``, ``online``, ``auto`` and ``sync``."""

from __future__ import annotations

from typing import Any

import click

from awayfs.cli import show
from awayfs.cli.ask import PATH, Failed, each, in_question, json_option, request, scoped, shown
from awayfs.cli.progress import Bar

_SCOPE = click.argument("scope", required=False)


def _switch(
    method: str, scope: str | None, as_json: bool, params: dict[str, Any] | None = None
) -> int:
    """Switch every mount in scope; the exit status."""
    replies, well = each(scoped(scope), method, params)
    one = scope is not None and not scope.startswith("server:")
    if as_json and (replies or not one):
        show.as_json(replies[0] if one else replies)
    elif not as_json:
        for reply in replies:
            click.echo(f"{show.printable(reply['mountpoint'])}  {reply.get('mode', '')}")
    return 0 if well else 1


@click.command()
@_SCOPE
@json_option
def offline(scope: str | None, as_json: bool) -> int:
    """Work disconnected from now on, until 'online' or 'auto'.

    SCOPE is a mount point, server:HOST, or nothing for all mounts.
    """
    return _switch("offline", scope, as_json)


@click.command()
@_SCOPE
@click.option(
    "--accept-server",
    is_flag=True,
    help="Another host key or another root is meant: from now on it is this volume's server.",
)
@json_option
def online(scope: str | None, accept_server: bool, as_json: bool) -> int:
    """Connect now, and send what is pending.

    SCOPE is a mount point, server:HOST, or nothing for all mounts.
    """
    if accept_server and (scope is None or scope.startswith("server:")):
        raise click.UsageError("--accept-server needs a mount point: it is about one volume")
    return _switch("online", scope, as_json, {"accept_server": True} if accept_server else None)


@click.command()
@_SCOPE
@json_option
def auto(scope: str | None, as_json: bool) -> int:
    """Let the link decide: disconnected when it is lost, connected when it is back.

    SCOPE is a mount point, server:HOST, or nothing for all mounts.
    """
    return _switch("auto", scope, as_json)


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
    """Send pending changes now: all, or those of PATH's volume."""
    if accept_deletions and path is None:
        raise click.UsageError("--accept-deletions needs a PATH: it is about one volume")
    replies, well = [], True
    for mount, inner in in_question(None, path):
        params: dict[str, Any] = {"wait": wait} | ({} if inner is None else {"path": inner})
        if accept_deletions:
            params["accept_deletions"] = True
        try:
            with Bar("sync") as bar:
                reply = request(mount, "sync", params, on_progress=bar)
        except Failed as error:
            show.complain(error.message)
            well = False
            continue
        well = well and not (wait and _left(reply))
        if not as_json:
            _report(shown(mount), reply, wait)
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
