"""The checks of ``awayfs doctor`` that are about logging in, and about running as a service."""

from __future__ import annotations

import importlib.util
import os
import shutil
from collections.abc import Callable

from awayfs.cli.checks import Finding
from awayfs.control import askpass, credentials, keyring_process
from awayfs.control.address import connectable
from awayfs.core.errors import UsageError

UNIT = os.path.join(os.path.dirname(os.path.dirname(__file__)), "systemd", "awayfs@.service")
_KEYRING = "keyring"
_HELPER = "/sbin/mount.awayfs"


def ssh_keys() -> Finding:
    """Something to log in with: an agent, or a key file."""
    agent = os.environ.get("SSH_AUTH_SOCK", "")
    if agent and connectable(agent):
        return Finding("ssh keys", "ok", "an agent is running")
    directory = os.path.expanduser("~/.ssh")
    names = os.listdir(directory) if os.path.isdir(directory) else []
    keys = sorted(name for name in names if name.startswith("id_") and not name.endswith(".pub"))
    if keys:
        return Finding("ssh keys", "ok", f"{', '.join(keys)} in {directory}")
    advice = "for sftp: run ssh-keygen and ssh-copy-id, or start an agent"
    return Finding("ssh keys", "warn", "no agent, and no key in ~/.ssh", advice)


def known_hosts() -> Finding:
    """Servers are recognised by it."""
    path = os.path.expanduser("~/.ssh/known_hosts")
    if os.path.isfile(path) and os.access(path, os.R_OK):
        return Finding("known_hosts", "ok", path)
    advice = "for sftp: log in once with ssh, and compare the key's fingerprint"
    return Finding("known_hosts", "warn", f"{path} is missing", advice)


def credentials_file() -> Finding:
    """Nobody else can read it."""
    path = credentials.default_file()
    if not os.path.lexists(path):
        return Finding("credentials", "ok", f"no {path}; passwords are asked for")
    try:
        credentials.read("", "sftp://nobody@nowhere/")
    except UsageError as error:
        return Finding("credentials", "fail", str(error))
    return Finding("credentials", "ok", f"{path} is yours alone")


def keyring() -> Finding:
    """It answers in time, if it is wanted at all."""
    if importlib.util.find_spec(_KEYRING) is None:
        return Finding("keyring", "ok", f"not used: {keyring_process.NOT_INSTALLED}")
    _, complaint = keyring_process.look_up(keyring_process.PASSWORDS, "nobody@nowhere")
    if complaint:
        advice = "start or unlock it, or use a credentials file or 'awayfs login'"
        return Finding("keyring", "warn", complaint, advice)
    return Finding("keyring", "ok", "answers")


def dialogue() -> Finding:
    """How a person is asked who is not at a terminal."""
    program = askpass.program(os.environ)
    if program:
        return Finding("askpass", "ok", f"{program} asks for passwords at the desktop")
    text = "no program asks for passwords at the desktop (SSH_ASKPASS); 'awayfs login' does"
    return Finding("askpass", "ok", text)


def kerberos() -> Finding:
    """Tickets need a module that is not installed with awayfs."""
    if importlib.util.find_spec("gssapi") is None:
        text = "not used: Python has no gssapi module (pip install 'awayfs[kerberos]')"
        return Finding("kerberos", "ok", text)
    if shutil.which("klist") is None:
        return Finding("kerberos", "ok", "gssapi is there; tickets cannot be listed without klist")
    return Finding("kerberos", "ok", "gssapi is there; see your tickets with klist")


def service() -> Finding:
    """How mounts come back after a crash and at the next login."""
    if not os.path.isdir("/run/systemd/system"):
        return Finding("service", "ok", f"systemd does not run here; its unit would be {UNIT}")
    home = os.environ.get("XDG_CONFIG_HOME") or os.path.expanduser("~/.config")
    places = (os.path.join(home, "systemd/user"), "/etc/systemd/user", "/usr/lib/systemd/user")
    if any(os.path.exists(os.path.join(place, os.path.basename(UNIT))) for place in places):
        return Finding("service", "ok", "systemd knows awayfs@.service")
    text = "systemd does not know awayfs@.service"
    advice = f"to mount at login and after a crash: systemctl --user link {UNIT}"
    return Finding("service", "ok", text, advice)


def mount_helper() -> Finding:
    """fstab and mount(8) look for it in one place."""
    if os.access(_HELPER, os.X_OK):
        return Finding("mount.awayfs", "ok", f"{_HELPER}: fstab can be used")
    found = shutil.which("mount.awayfs") or "$(command -v mount.awayfs)"
    advice = f"to use fstab, run as root: ln -s {found} /sbin/"
    return Finding("mount.awayfs", "ok", "not in /sbin", advice)


CHECKS: tuple[Callable[[], Finding], ...] = (
    ssh_keys,
    known_hosts,
    credentials_file,
    keyring,
    dialogue,
    kerberos,
    service,
    mount_helper,
)
