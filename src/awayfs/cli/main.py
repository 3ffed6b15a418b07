"""The command line's entry: each command is loaded when it is used, each error is one line."""

from __future__ import annotations

import errno
import importlib
import os
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

import click

from awayfs import __version__
from awayfs.cli import show
from awayfs.control.messages import ControlError
from awayfs.core.errors import AwayfsError, UsageError

COMMANDS = {
    "mount": "mounting",
    "umount": "mounting",
    "status": "status",
    "events": "events",
    "offline": "modes",
    "online": "modes",
    "auto": "modes",
    "login": "login",
    "pin": "pins",
    "unpin": "pins",
    "pins": "pins",
    "hoard": "pins",
    "sync": "modes",
    "journal": "journal",
    "diff": "session",
    "discard": "session",
    "conflicts": "conflicts",
    "resolve": "resolve",
    "why": "conflicts",
    "config": "config",
    "cull": "volumes",
    "cache": "volumes",
    "fsck": "volumes",
    "volumes": "volumes",
    "forget": "volumes",
    "demo": "demo",
    "doctor": "doctor",
}
"""The module that each command is in."""


class OneLineErrors:
    """A click command whose failures end as one line on standard error and status 1 or 2."""

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        **extra: Any,
    ) -> Any:
        """Run; in standalone mode this ends the process."""
        run = super().main  # type: ignore[misc]
        if not standalone_mode:
            return run(args, prog_name, complete_var, standalone_mode=False, **extra)
        for stream in (sys.stdout, sys.stderr):
            if hasattr(stream, "reconfigure"):
                stream.reconfigure(errors="backslashreplace")
        try:
            status = run(args, prog_name, complete_var, standalone_mode=False, **extra)
            sys.stdout.flush()
        except Exception as error:
            _end(error)
        except KeyboardInterrupt:
            _end(click.Abort())
        sys.exit(status if isinstance(status, int) else 0)


class Commands(OneLineErrors, click.Group):
    """The commands of ``COMMANDS``, in that order, each imported when asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f"awayfs.cli.{COMMANDS[cmd_name]}")
        command: click.Command = getattr(module, cmd_name)
        return command


def _end(error: Exception) -> NoReturn:
    """End the process as the error asks for."""
    if isinstance(error, click.exceptions.Exit):
        sys.exit(error.exit_code)
    if isinstance(error, OSError) and error.errno == errno.EPIPE:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    if type(error).__name__ == "NoArgsIsHelpError" and isinstance(error, click.UsageError):
        click.echo(error.format_message(), err=True)  # a bare group: its help
        sys.exit(2)
    show.complain(_line(error))
    usage = isinstance(error, click.UsageError | UsageError)
    sys.exit(2 if usage else 1)


def _line(error: Exception) -> str:
    if isinstance(error, click.Abort):
        return "interrupted"
    if isinstance(error, click.UsageError):
        path = error.ctx.command_path if error.ctx else "awayfs"
        command = path.partition(" ")[2]
        message = " ".join(error.format_message().split()).rstrip(".")
        return f"{command + ': ' if command else ''}{message}; see '{path} --help'"
    if isinstance(error, click.ClickException):
        return error.format_message()
    if isinstance(error, ControlError | AwayfsError):
        return str(error)
    if isinstance(error, OSError):
        name = f"{os.fsdecode(error.filename)}: " if error.filename else ""
        return f"{name}{error.strerror or error}"
    return f"a mistake in awayfs: {type(error).__name__}: {error}; please report it"


@click.group(
    cls=Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(__version__, prog_name="awayfs")
def main() -> None:
    """A network share that keeps working when the network does not."""


class _Helper(OneLineErrors, click.Command):
    """``mount.awayfs`` as a command of its own."""


@click.command(cls=_Helper, name="mount.awayfs")
@click.argument("url")
@click.argument("mountpoint", type=click.STRING)
@click.option("-o", "options", multiple=True, metavar="OPT,...", help="Mount options.")
@click.option("-f", "fake", is_flag=True, help="Check everything, mount nothing.")
@click.option("-s", "sloppy", is_flag=True, hidden=True)
@click.option("-n", "no_mtab", is_flag=True, hidden=True)
@click.option("-v", "verbose", is_flag=True, hidden=True)
@click.option("-t", "fstype", hidden=True)
@click.option("-N", "namespace", hidden=True)
def mount_helper(url: str, mountpoint: str, options: tuple[str, ...], fake: bool, **_: Any) -> None:
    """What mount(8) runs for the type ``awayfs``, and so fstab and systemd mount units."""
    from awayfs.cli.mounting import mount_one

    mount_one(url, os.fsencode(mountpoint), ",".join(options), fake=fake)
