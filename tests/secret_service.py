"""A real Secret Service: Debian's gnome-keyring on a private session bus, with a test password."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.fake_bus import bus_at
from tests.harness import eventually

needs_secret_service = [
    pytest.mark.skipif(
        shutil.which("dbus-daemon") is None or shutil.which("gnome-keyring-daemon") is None,
        reason="no keyring here (Debian: dbus-daemon gnome-keyring)",
    ),
]

MASTER = "Open-Sesame-5"
LOGIN = "/org/freedesktop/secrets/collection/login"
BACKEND = "keyring.backends.SecretService.Keyring"


BUS = """<busconfig>
  <type>session</type>
  <listen>unix:path={0}/session-bus</listen>
  <servicedir>{0}/services</servicedir>
  <policy context="default">
    <allow send_destination="*"/>
    <allow receive_sender="*"/>
    <allow own="*"/>
  </policy>
</busconfig>
"""
"""A bus that starts no service of this machine, but for the one below."""

PROMPTER = """[D-BUS Service]
Name=org.gnome.keyring.SystemPrompter
Exec={1} -c "touch {0}/asked; exit 1"
"""
"""Whoever would have a dialogue shown leaves a file instead."""


class SecretService:
    """One user's keyring, open at first. Its files are in ``directory``.

    ``fresh``: nobody has ever used it, so it has no collection.
    """

    def __init__(self, directory: str, *, fresh: bool = False) -> None:
        self.address = f"unix:path={directory}/session-bus"
        self.files = f"{directory}/data"
        self._asked = f"{directory}/asked"
        self.environment = {
            "DBUS_SESSION_BUS_ADDRESS": self.address,
            "PYTHON_KEYRING_BACKEND": BACKEND,
        }
        own = {"HOME": directory, "XDG_DATA_HOME": self.files, "XDG_RUNTIME_DIR": f"{directory}/rt"}
        for path in (self.files, own["XDG_RUNTIME_DIR"]):
            os.makedirs(path, mode=0o700)
        how = [] if fresh else ["--unlock"]
        self._process = subprocess.Popen(
            ["gnome-keyring-daemon", "--foreground", *how, "--components=secrets"],
            env={**os.environ, **self.environment, **own},
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        assert self._process.stdin is not None
        self._process.stdin.write(MASTER.encode())
        self._process.stdin.close()
        eventually(self._runs if fresh else self._serves, "the keyring")

    def lock(self) -> None:
        """As a screen that is locked may do it."""
        self._collection().lock()
        assert self._collection().is_locked()

    def unlock(self) -> None:
        """As the dialogue does it, without one."""
        from secretstorage.util import DBusAddressWrapper, format_secret, open_session

        connection = self._connection()
        inside = "org.gnome.keyring.InternalUnsupportedGuiltRiddenInterface"
        service = DBusAddressWrapper("/org/freedesktop/secrets", inside, connection)
        master = format_secret(open_session(connection), MASTER.encode(), "text/plain")
        service.call("UnlockWithMasterPassword", "o(oayays)", LOGIN, master)
        assert not self._collection().is_locked()

    def secret(self, service: str, user: str) -> str | None:
        """What any program of the user finds there."""
        for item in self._collection().search_items({"service": service, "username": user}):
            return str(item.get_secret().decode())
        return None

    def asked_for_a_person(self) -> bool:
        """Whether the dialogue was to be shown that opens a keyring."""
        return os.path.exists(self._asked)

    def close(self) -> None:
        self._process.kill()
        self._process.wait()

    def _connection(self):  # type: ignore[no-untyped-def]
        from jeepney.io.blocking import open_dbus_connection

        return open_dbus_connection(self.address)

    def _collection(self):  # type: ignore[no-untyped-def]
        import secretstorage

        return secretstorage.Collection(self._connection(), LOGIN)

    def _runs(self) -> bool:
        from secretstorage import check_service_availability

        return bool(check_service_availability(self._connection()))

    def _serves(self) -> bool:
        try:
            return not self._collection().is_locked()
        except Exception:
            return False


@contextmanager
def secret_service(directory: str, *, fresh: bool = False) -> Iterator[SecretService]:
    """A bus with a keyring on it that is open."""
    os.makedirs(f"{directory}/services", mode=0o700)
    shell = shutil.which("sh")
    for name, text in (("bus.conf", BUS), ("services/prompter.service", PROMPTER)):
        with open(f"{directory}/{name}", "w") as file:
            file.write(text.format(directory, shell))
    with bus_at(f"{directory}/session-bus", f"--config-file={directory}/bus.conf"):
        service = SecretService(directory, fresh=fresh)
        try:
            yield service
        finally:
            service.close()
