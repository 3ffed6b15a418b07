"""``dir:``: a call whose caller has gone, while a thread is still at it."""

from __future__ import annotations

import asyncio
import os
import threading
from pathlib import Path
from typing import Any

import pytest

from awayfs.core.types import Attributes
from awayfs.remotes.directory import DirectoryRemote


def test_who_cancels_a_call_waits_until_its_thread_has_let_go(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the descriptor is closed under it, and what it stages comes over what is staged next."""
    begun, go_on, let_go = threading.Event(), threading.Event(), threading.Event()

    async def run() -> None:
        remote = DirectoryRemote(os.fsencode(tmp_path))
        await remote.connect()
        stage = remote._maker.stage

        def slowly(*told: Any) -> Any:
            begun.set()
            go_on.wait(30)
            try:
                return stage(*told)
            finally:
                let_go.set()

        monkeypatch.setattr(remote._maker, "stage", slowly)
        fd = os.memfd_create("content")
        try:
            call = remote.stage("client-1", b"", fd, 0, Attributes(mode=0o644))
            staging = asyncio.ensure_future(call)
            assert await asyncio.to_thread(begun.wait, 30)
            staging.cancel()
            done, _ = await asyncio.wait([staging], timeout=0.3)
            assert not done, "the thread is still at it"
            go_on.set()
            with pytest.raises(asyncio.CancelledError):
                await staging
            assert let_go.is_set()
        finally:
            go_on.set()
            os.close(fd)
            await remote.close()

    asyncio.run(run())
