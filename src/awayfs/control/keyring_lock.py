"""Whether the user's keyring is locked, without having anybody asked to open it.

The Secret Service's default collection has a property for it (freedesktop.org, Secret Service
API, ``org.freedesktop.Secret.Collection``), which can be read at any time.
"""

from __future__ import annotations

import enum
import os

WITHIN_S = 1.0
BUS_NAME = "org.freedesktop.secrets"
DEFAULT = "/org/freedesktop/secrets/aliases/default"
_NOT_RUNNING = ("ServiceUnknown", "NameHasNoOwner", "Spawn")


class Lock(enum.StrEnum):
    """How the default collection is."""

    OPEN = "open"
    LOCKED = "locked"
    MISSING = "missing"  # the service has none; to make one it would ask a person
    UNKNOWN = "unknown"  # no such service runs, or it does not answer


def look(*, start: bool = False) -> Lock:
    """Ask, for a second at most; ``start``: a service that can be started is."""
    if not os.environ.get("DBUS_SESSION_BUS_ADDRESS"):
        return Lock.UNKNOWN
    from jeepney import DBusAddress, HeaderFields, MessageFlag, MessageType, Properties
    from jeepney.io.blocking import open_dbus_connection

    where = DBusAddress(DEFAULT, BUS_NAME, "org.freedesktop.Secret.Collection")
    question = Properties(where).get("Locked")
    if not start:
        question.header.flags |= MessageFlag.no_auto_start
    try:
        with open_dbus_connection("SESSION") as bus:
            answer = bus.send_and_get_reply(question, timeout=WITHIN_S)
    except Exception:  # whatever a bus says: it is not known then
        return Lock.UNKNOWN
    if answer.header.message_type is MessageType.method_return:
        return Lock.LOCKED if answer.body[0][1] else Lock.OPEN
    error = str(answer.header.fields.get(HeaderFields.error_name, ""))
    return Lock.UNKNOWN if any(word in error for word in _NOT_RUNNING) else Lock.MISSING
