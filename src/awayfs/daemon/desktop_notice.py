"""A notice on the desktop, over the session bus, where one runs.

The call is that of the Desktop Notifications Specification (``org.freedesktop.Notifications``).
What is shown comes from the mount's own URL and place, never from a server.
"""

from __future__ import annotations

import logging
import os

log = logging.getLogger(__name__)

WITHIN_S = 3.0
NAME = "org.freedesktop.Notifications"
ICON = "dialog-password"


def login_needed(wants: str, url: str, mountpoint: str) -> tuple[str, str]:
    """Summary and body for a volume that waits for a password, a passphrase or a key."""
    if wants == "key":
        return "A share accepts none of your keys", f"{url}: add one with ssh-add"
    option = " --passphrase" if wants == "passphrase" else ""
    return f"A share needs a {wants}", f"{url}: run 'awayfs login{option} {mountpoint}'"


def show(summary: str, body: str) -> None:
    """Have it shown; nothing happens where that cannot be done. Blocks for a moment."""
    if not os.environ.get("DBUS_SESSION_BUS_ADDRESS"):
        return
    import html

    from jeepney import DBusAddress, new_method_call
    from jeepney.io.blocking import open_dbus_connection

    where = DBusAddress("/org/freedesktop/Notifications", NAME, NAME)
    text = html.escape(body, quote=False)
    actions: list[str] = []
    hints: dict[str, tuple[str, object]] = {}
    facts = ("awayfs", 0, ICON, summary, text, actions, hints, -1)
    message = new_method_call(where, "Notify", "susssasa{sv}i", facts)
    try:
        with open_dbus_connection("SESSION") as bus:
            bus.send_and_get_reply(message, timeout=WITHIN_S)
    except Exception as error:  # whatever a bus says: it is no reason to fail
        log.info("no notice on the desktop: %s: %s", type(error).__name__, error)
