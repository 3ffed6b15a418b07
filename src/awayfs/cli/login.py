"""``login``: a password or a key's passphrase for a mounted volume, asked for without echo."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass

import click

from awayfs.cli import show
from awayfs.cli.ask import PATH, Failed, json_option, located, request, shown
from awayfs.control import askpass, keyring_process
from awayfs.control.client import MountInfo
from awayfs.control.urls import parse_url
from awayfs.core.secrets import Secrets

LONGEST = 4096
LOGIN_WITHIN = 40.0
"""Seconds: some servers take their time to refuse a password."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What a server or a key wants."""

    kind: str  # password or passphrase
    of: str  # for the prompt

    @property
    def prompt(self) -> str:
        """What stands before the cursor."""
        return askpass.question(self.kind, show.printable(self.of))


@click.command()
@click.argument("path", type=PATH)
@click.option("--passphrase", is_flag=True, help="It opens a key, and is no password.")
@click.option("--keep", "to_keep", is_flag=True, help="Put it into the keyring when it is right.")
@json_option
def login(path: bytes, passphrase: bool, to_keep: bool, as_json: bool) -> int:
    """Give the password that PATH's volume waits for ('authentication required').

    It is asked for on the terminal, without echo; from a script, it is the first line of the
    standard input; without either, the program that SSH_ASKPASS names asks for it. It stays in
    the daemon's memory until the volume is unmounted.
    """
    mount, _ = located(path)
    account = _account(mount) if to_keep else ""
    wants = str(request(mount, "login_wanted").get("wants", ""))
    kind = "passphrase" if passphrase or wants == "passphrase" else "password"
    secrets = ask(Asked(kind, mount.url), from_script=True)
    reply = send(mount, secrets)
    if to_keep:
        _keep(mount, account, secrets, reply)
    if as_json:
        facts = {"volume": mount.volume, "mountpoint": shown(mount), "kept": to_keep}
        show.as_json({**facts, **reply})
    elif reply.get("used"):
        click.echo(show.printable(f"{shown(mount)}: logged in ({reply.get('mode', '')})"))
    else:
        click.echo(show.printable(f"{shown(mount)}: kept for the next login"))
    return 0


def _account(mount: MountInfo) -> str:
    """Whose secret the keyring has to keep, found out before anybody types it."""
    url = parse_url(mount.url)
    if not url.user:
        raise Failed(
            f"{mount.url}: names no user, so the keyring cannot tell whose password it would be; "
            "mount it as sftp://user@host/path"
        )
    return keyring_process.account(url.user, url.host, url.port)


def _keep(mount: MountInfo, account: str, secrets: Secrets, reply: dict[str, object]) -> None:
    """Into the keyring, unless the server has just refused it and something else let us in."""
    if reply.get("refused"):
        raise Failed(
            f"{shown(mount)}: logged in with something else; what was typed was refused "
            "and is not kept"
        )
    service = keyring_process.PASSWORDS if secrets.password else keyring_process.PASSPHRASES
    complaint = keyring_process.keep(service, account, secrets.password or secrets.passphrase)
    if complaint:
        raise Failed(f"{shown(mount)}: it works, and the keyring does not keep it: {complaint}")


def ask(asked: Asked, *, from_script: bool = False) -> Secrets:
    """What is typed; raises ``Failed`` for nothing. Never shown, wherever it comes from.

    At the terminal; ``from_script``: or the first line of the standard input; or at the desktop.
    """
    typed = ""
    if sys.stdin.isatty():
        import getpass

        try:
            typed = getpass.getpass(asked.prompt)
        except EOFError:
            pass
    elif from_script:
        typed = sys.stdin.readline(LONGEST).rstrip("\r\n")
    if not typed and not sys.stdin.isatty() and (program := askpass.program(os.environ)):
        typed = askpass.ask(program, asked.prompt)
    if not typed:
        raise Failed(f"{asked.of}: no {asked.kind} was given")
    return Secrets(**{asked.kind: typed})


def send(mount: MountInfo, secrets: Secrets) -> dict[str, object]:
    """Have the daemon log in with it, over its control socket, which is the user's alone."""
    return request(mount, "login", dict(secrets.named()), timeout=LOGIN_WITHIN)


def can_ask() -> bool:
    """Whether a person is there who can be asked, at the terminal or at the desktop."""
    at_terminal = sys.stdin.isatty() and sys.stderr.isatty()
    return at_terminal or bool(askpass.program(os.environ))
