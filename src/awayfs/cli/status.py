"""``status``: modes, pending changes, cache, conflicts, last contact."""

from __future__ import annotations

import sys
import time
from typing import Any

import click

from awayfs.cli import show
from awayfs.cli.ask import ELSEWHERE, PATH, Failed, about, json_option, request, shown
from awayfs.control.client import MountInfo, find_mounts

_EVERY = 1.0


@click.command()
@click.argument("path", type=PATH, required=False)
@json_option
@click.option("--watch", is_flag=True, help="Refresh every second until interrupted.")
@click.option("--history", is_flag=True, help="Show the last modes, too, each with its cause.")
def status(path: bytes | None, as_json: bool, watch: bool, history: bool) -> int:
    """Show all mounts, or the mount and the state of PATH."""
    if not watch:
        return _once(path, as_json, history=history)
    try:
        while True:
            if sys.stdout.isatty() and not as_json:
                click.echo("\033[H\033[2J", nl=False)
            _once(path, as_json, line=True, history=history)
            sys.stdout.flush()
            time.sleep(_EVERY)
    except KeyboardInterrupt:
        return 0


def _once(path: bytes | None, as_json: bool, *, line: bool = False, history: bool = False) -> int:
    """Print one state of things; the exit status. JSON has the history anyway."""
    write = show.as_json_line if line else show.as_json
    if path is not None:
        reply = about(path, "status")
        if as_json:
            write(reply)
        else:
            _show(reply, history)
        return 0
    replies = [_asked(mount) for mount in find_mounts()]
    if as_json:
        write(replies)
    elif not replies:
        click.echo("nothing is mounted")
    else:
        for number, reply in enumerate(replies):
            if number:
                click.echo()
            _show(reply, history)
    return 1 if any("error" in reply for reply in replies) else 0


def _asked(mount: MountInfo) -> dict[str, Any]:
    """The mount's status; for one that does not answer, what is known without it."""
    if mount.elsewhere:
        return {**_known(mount), "elsewhere": True}
    try:
        return request(mount, "status", timeout=3.0)
    except Failed as error:
        show.complain(error.message)
        return {**_known(mount), "error": error.message}


def _known(mount: MountInfo) -> dict[str, Any]:
    """What there is to say without its daemon."""
    return {
        "volume": mount.volume,
        "url": mount.url,
        "mountpoint": shown(mount),
        "pid": mount.pid or None,
        "mode": None,
    }


def _show(reply: dict[str, Any], history: bool = False) -> None:
    if reply.get("elsewhere"):
        click.echo(show.printable(reply["mountpoint"]) + "  served from elsewhere")
        show.facts([("volume", reply["url"]), ("state", ELSEWHERE)])
        return
    if reply.get("mode") is None:
        click.echo(show.printable(reply["mountpoint"]) + "  does not answer")
        show.facts([("volume", reply["url"]), ("process", str(reply["pid"] or "unknown"))])
        return
    click.echo(f"{show.printable(reply['mountpoint'])}  {reply['mode']}")
    pairs = [
        ("volume", f"{reply.get('url', '')}  ({reply.get('volume', '')})"),
        ("mode", _mode(reply)),
        *_link(reply.get("link") or {}),
        ("pending", _pending(reply)),
        *_reintegrate(reply),
        ("conflicts", _conflicts(reply)),
        ("cache", _cache(reply.get("cache") or {})),
        ("last contact", show.ago(reply.get("last_contact_ns"))),
    ]
    show.facts(pairs)
    if history:
        _history(reply.get("history") or [])
    if node := reply.get("path"):
        click.echo(show.printable(node.get("path") or "/"))
        show.facts(_node(node))


def _mode(reply: dict[str, Any]) -> str:
    words = [str(reply["mode"])]
    if reply.get("since_ns"):
        words.append(f"since {show.ago(reply['since_ns'])}")
    if reply.get("until_ns"):
        words.append(f"until {show.moment(reply['until_ns'])}")
    if reply.get("by_hand"):
        scope = reply.get("scope")
        named = "" if scope in (None, "all") else f" {scope}"
        words.append(f"(by hand; 'awayfs auto{named}' ends that)")
    if reply.get("cause"):
        words.append(f"- {reply['cause']}")
    return " ".join(words)


def _link(link: dict[str, Any]) -> list[tuple[str, str]]:
    """Only what is worth a line: a link that is to be spared."""
    return [("link", f"weak: {link.get('why') or 'metered'}")] if link.get("weak") else []


def _history(modes: list[dict[str, Any]]) -> None:
    click.echo("  history")
    for entry in modes:
        when = show.moment(entry.get("since_ns") or 0)
        hand = ", by hand" if entry.get("by_hand") else ""
        line = f"    {when}  {entry.get('mode')}{hand}: {entry.get('cause') or '-'}"
        click.echo(show.printable(line))


def _pending(reply: dict[str, Any]) -> str:
    pending = reply.get("pending") or {}
    if not pending.get("records"):
        return "nothing"
    text = f"{show.count(pending['records'], 'change')}, {show.size(pending.get('bytes'))}"
    if pending.get("held"):
        text += f"; {show.held(pending['held'], reply.get('reintegrate', ''))}"
    if pending.get("parked"):
        text += f", {pending['parked']} parked (see 'awayfs journal list')"
    if pending.get("resting"):
        soon = f"the first for {pending['resting_s']:.0f} s more"
        text += f", {pending['resting']} resting, {soon} ('awayfs sync' sends them now)"
    return text + (_sending(reply.get("sending") or {}) if reply.get("replaying") else "")


def _sending(sending: dict[str, Any]) -> str:
    """That it is, and how fast, where that is known."""
    if not sending.get("records_per_s"):
        return ", being sent"
    text = f", being sent: {sending['records_per_s']:.0f}/s, {show.size(sending['bytes_per_s'])}/s"
    left_s = sending.get("left_s")
    return text if left_s is None else f"{text}, about {show.duration(left_s)} left"


def _reintegrate(reply: dict[str, Any]) -> list[tuple[str, str]]:
    """When changes are sent, where that is not at once."""
    policy = reply.get("reintegrate")
    return [("reintegrate", str(policy))] if policy not in (None, "eager") else []


def _conflicts(reply: dict[str, Any]) -> str:
    number = reply.get("conflicts") or 0
    return f"{number} (see 'awayfs conflicts')" if number else "none"


def _cache(cache: dict[str, Any]) -> str:
    text = show.size(cache.get("bytes"))
    if cache.get("limit"):
        text += f" of {show.size(cache['limit'])}"
    return text + (f", {show.count(cache['nodes'], 'node')}" if "nodes" in cache else "")


def _node(node: dict[str, Any]) -> list[tuple[str, str]]:
    pin = node.get("pin")
    pairs = [("state", ", ".join(node.get("state") or []) or "-")]
    pairs.append(("pin", "no" if pin is None or pin is False else f"priority {pin}"))
    if node.get("version"):
        pairs.append(("version", str(node["version"])))
    if node.get("error"):
        pairs.append(("error", str(node["error"])))
    return pairs
