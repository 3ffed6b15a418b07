"""The demo's commands, without running any of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from awayfs.daemon import demo as demo_module
from awayfs.daemon.demo import Demo


class Recorded(Demo):
    """A demo whose commands are only written down."""

    def __init__(self, base: str) -> None:
        super().__init__(base)
        self.commands: list[tuple[str, ...]] = []

    def _awayfs(self, *arguments: str, check: bool = True) -> None:
        self.commands.append(arguments)

    def _start_server(self) -> None: ...

    def _kill_server(self) -> None: ...

    def _shell(self, command: str, why: str = "") -> None: ...

    def _show_server(self, command: str) -> None: ...


def test_every_command_is_about_the_demos_own_mount(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A dead mount elsewhere on the machine must not make the demo fail."""
    monkeypatch.setattr(demo_module, "wait_for", lambda *_: None)
    demo = Recorded(str(tmp_path))
    demo.run()
    assert len(demo.commands) > 5
    strays = [c for c in demo.commands if not any(word.startswith(demo.share) for word in c)]
    assert strays == []
