"""``demo``: the whole thing on one machine, in a process of its own."""

from __future__ import annotations

import subprocess
import sys

import click


@click.command(context_settings={"ignore_unknown_options": True, "help_option_names": []})
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def demo(arguments: tuple[str, ...]) -> int:
    """Show on this machine what happens when a server goes away and comes back."""
    command = [sys.executable, "-P", "-m", "awayfs.daemon.demo", *arguments]
    status = subprocess.call(command)
    return status if status in (0, 2) else 1
