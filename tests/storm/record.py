"""What happened in a storm, line by line, and what was found."""

from __future__ import annotations

import threading
import time


class Record:
    """``ops.log`` of one storm, and its problems."""

    def __init__(self, path: str) -> None:
        self._file = open(path, "w", errors="backslashreplace")  # noqa: SIM115
        self._lock = threading.Lock()
        self._begun = time.monotonic()
        self.problems: list[str] = []

    @property
    def elapsed(self) -> float:
        """Seconds since the storm began."""
        return time.monotonic() - self._begun

    def log(self, *words: object) -> None:
        """One line, with its time."""
        with self._lock:
            print(f"{self.elapsed:8.3f}", *words, file=self._file, flush=True)

    def problem(self, *words: object) -> None:
        """Something that must not be; told at once."""
        text = " ".join(str(word) for word in words)
        self.problems.append(text)
        self.log("PROBLEM", text)
        print("PROBLEM", text.encode(errors="backslashreplace").decode(), flush=True)
