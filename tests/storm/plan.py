"""What a storm is made of: its server, its mounts, its faults, how it ends."""

from __future__ import annotations

import shlex
from dataclasses import dataclass

KINDS = ("dir", "sftp")
ACTORS = ("ann", "ben", "server")
FAULTS = ("kill", "cut", "session", "stop", "hand", "remount", "cull")
ALL_FAULTS = (*FAULTS, "sync", "worker", "resolve")
FRESH = "fresh=1"
"""The usual mount options: what others did is seen soon."""
SECONDS = 22.0


@dataclass(frozen=True)
class Plan:
    """One storm. Empty ``operations`` are all; empty ``options_ben`` are those of ann."""

    kind: str
    seed: int
    seconds: float = SECONDS
    options: str = FRESH
    options_ben: str = ""
    faults: tuple[str, ...] = FAULTS
    operations: tuple[str, ...] = ()
    actors: tuple[str, ...] = ACTORS
    keep: str = "both"
    killed_to_the_end: bool = False

    def options_of(self, client: str) -> str:
        """The mount options of one client."""
        return self.options_ben if client == "ben" and self.options_ben else self.options

    @property
    def command(self) -> str:
        """The arguments that ask for this storm."""
        words = ["--kind", self.kind, "--seed", str(self.seed), "--seconds", f"{self.seconds:g}"]
        words += ["--mount-options", self.options]
        if self.options_ben:
            words += ["--ben-options", self.options_ben]
        for name, given, usual in (
            ("--faults", self.faults, FAULTS),
            ("--only", self.operations, ()),
            ("--actors", self.actors, ACTORS),
        ):
            words += [name, ",".join(given)] if given != usual else []
        words += ["--keep", self.keep] if self.keep != "both" else []
        words += ["--killed-to-the-end"] if self.killed_to_the_end else []
        return shlex.join(words)


NAMES_AND_CONTENT = (
    *("create", "excl", "save", "bsave", "rename", "renamedir", "chmod", "chmoddir", "xattr"),
    *("append", "overwrite", "mkdir", "utime", "read", "cptree"),
)
"""Nothing is removed: there are ever more names that meet."""


def varied(kind: str, seed: int, seconds: float) -> Plan:
    """The storm of one seed of a range: five sorts, in turn."""
    if kind == "dir":
        return _varied_dir(seed, seconds)
    return _varied_sftp(seed, seconds)


def _varied_dir(seed: int, seconds: float) -> Plan:
    match seed % 5:
        case 0:
            return Plan("dir", seed, seconds, killed_to_the_end=True)
        case 1:
            return Plan("dir", seed, seconds, f"{FRESH},reintegrate=lazy", f"{FRESH},cache-size=2M")
        case 2:
            return Plan("dir", seed, seconds, FRESH, f"{FRESH},writes=close", ALL_FAULTS)
        case 3:
            faults = ("kill", "cut", "hand", "remount", "cull")
            return Plan(
                *("dir", seed, seconds),
                faults=faults,
                operations=NAMES_AND_CONTENT,
                killed_to_the_end=True,
            )
        case _:
            weak = f"{FRESH},weak-rate=1G,ageing=6"
            return Plan("dir", seed, seconds, f"{FRESH},reintegrate=manual", weak, keep="local")


def _varied_sftp(seed: int, seconds: float) -> Plan:
    match seed % 5:
        case 0:
            return Plan("sftp", seed, seconds)
        case 1:
            small = f"{FRESH},cache-size=2M"
            return Plan("sftp", seed, seconds, small, killed_to_the_end=True)
        case 2:
            manual, close = f"{FRESH},reintegrate=manual", f"{FRESH},writes=close"
            return Plan("sftp", seed, seconds, manual, close, ALL_FAULTS)
        case 3:
            weak, through = f"{FRESH},weak-rate=1G,ageing=6", f"{FRESH},writes=through"
            faults = ("kill", "cut", "session", "hand", "remount", "worker")
            return Plan("sftp", seed, seconds, weak, through, faults)
        case _:
            return Plan("sftp", seed, seconds, killed_to_the_end=True)
