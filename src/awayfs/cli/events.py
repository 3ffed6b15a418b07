"""``events``: what happened to a mount, and what happens."""

from __future__ import annotations

import json
import sys
import time
from typing import Any

import click

from awayfs.cli import show
from awayfs.cli.ask import PATH, json_option, request, the_mount

NS = 1_000_000_000


@click.command()
@click.argument("path", type=PATH, required=False)
@click.option("--follow", "-f", is_flag=True, help="Go on with what happens, until interrupted.")
@json_option
def events(path: bytes | None, follow: bool, as_json: bool) -> int:
    """Show what happened to the mount that PATH is in: modes, conflicts, refusals, the cache.

    The newest events are kept, as long as the mount lives.
    """

    def told(progress: dict[str, Any]) -> None:
        for line in progress["lines"].splitlines():
            click.echo(line if as_json else _line(json.loads(line)))
        sys.stdout.flush()

    try:
        request(the_mount(path), "events", {"follow": follow}, on_progress=told)
    except KeyboardInterrupt:
        if not follow:
            raise
    return 0


def _line(event: dict[str, Any]) -> str:
    """One event for a person."""
    when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(event["at_ns"] // NS))
    where = f"{event['path'] or '/'}: " if event["path"] is not None else ""
    return show.printable(f"{when}  {event['kind']:17}  {where}{event['text']}")
