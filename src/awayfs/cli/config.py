"""``config``: the settings that count at a path, and where each comes from."""

from __future__ import annotations

from typing import Any

import click

from awayfs.cli import show
from awayfs.cli.ask import PATH, json_option, located, request, shown
from awayfs.control.messages import text_of


@click.command()
@click.argument("path", type=PATH)
@json_option
def config(path: bytes, as_json: bool) -> None:
    """Show which settings count at PATH, and where each of them comes from."""
    mount, inner = located(path)
    reply = request(mount, "config", {"path": inner}, what=text_of(path))
    if as_json:
        show.as_json({"mountpoint": shown(mount), **reply})
        return
    rows = [(one["name"], _short(one["text"]), one["from"]) for one in reply["settings"]]
    rows += [("leave-out", one["pattern"], one["from"]) for one in reply["leave_out"]]
    merge: dict[str, Any] | None = reply["merge"]
    if merge is not None:
        rows.append(("merge", f"{merge['strategy']} ({merge['pattern']})", merge["from"]))
    show.table(("SETTING", "VALUE", "FROM"), rows)
    out = reply["left_out"]
    if out is not None:
        click.echo(show.printable(f"hoard walks leave it out: {out['pattern']} ({out['from']})"))
    for line in reply["complaints"]:
        show.complain(show.printable(line))


def _short(text: str) -> str:
    return text if len(text) <= 40 else text[:37] + "..."
