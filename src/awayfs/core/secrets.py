"""What proves to a server who we are, where a key or a ticket does not."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Secrets:
    """A password, and the passphrase of a key; empty text is "none".

    Neither shows in ``repr``, so that neither gets into a log. A passphrase never goes to a
    server: it opens a key file on this machine. That is why there are two fields.
    """

    password: str = field(default="", repr=False)
    passphrase: str = field(default="", repr=False)

    def __bool__(self) -> bool:
        return bool(self.password or self.passphrase)

    def named(self) -> dict[str, str]:
        """Those that there are, by name."""
        both = {"password": self.password, "passphrase": self.passphrase}
        return {name: value for name, value in both.items() if value}
