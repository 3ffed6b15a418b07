"""Asking the person at the desktop, once, when a volume waits for a password or a passphrase.

By the program that ssh uses for it (``control/askpass.py``); where there is none, a notification
says what to do. Whoever would not answer, or was asked at a terminal, is not asked again before
the volume has been connected in between. The dialogue goes when it is not needed any more.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from collections.abc import Awaitable, Callable, Mapping

from awayfs.control import askpass
from awayfs.core.errors import AuthenticationRequired, RemoteError
from awayfs.core.secrets import Secrets
from awayfs.daemon import desktop_notice
from awayfs.daemon.wallet import UserWallet

log = logging.getLogger(__name__)

TRIES = 3
"""As ssh does it; each is typed by a person."""


class Asking:
    """For the volume at ``url``; ``connect`` tries what was typed, raising what came of it."""

    def __init__(
        self,
        url: str,
        mountpoint: str,
        wallet: UserWallet,
        connect: Callable[[], Awaitable[None]],
        environment: Mapping[str, str] = os.environ,
    ) -> None:
        self._url = url
        self._mountpoint = mountpoint
        self._wallet = wallet
        self._connect = connect
        self._environment = environment
        self._asked: set[str] = set()
        self._dialogue: asyncio.Task[None] | None = None

    def asked_elsewhere(self) -> None:
        """A person is being asked for it at a terminal."""
        self._asked.add(self._wallet.wants)

    async def needed(self) -> None:
        """The volume waits: ask, unless that has been done."""
        wants = self._wallet.wants
        if not wants or wants in self._asked:
            return
        self._asked.add(wants)
        program = askpass.program(self._environment) if wants != "key" else ""
        if program:
            self.put_away()
            self._dialogue = asyncio.create_task(self._ask(program, wants))
        else:
            summary, body = desktop_notice.login_needed(wants, self._url, self._mountpoint)
            await asyncio.to_thread(desktop_notice.show, summary, body)

    def connected(self) -> None:
        """From now on a refusal is news."""
        self._asked.clear()

    def put_away(self) -> None:
        """Nobody needs an answer any more."""
        if self._dialogue is not None:
            self._dialogue.cancel()
            self._dialogue = None

    async def _ask(self, program: str, wants: str) -> None:
        before = ""
        for _ in range(TRIES):
            answer = await _typed(program, askpass.question(wants, self._url, before))
            if not answer:
                log.info("asked for a %s at the desktop; none was given", wants)
                return
            self._wallet.give(Secrets(**{wants: answer}))
            try:
                await self._connect()
            except AuthenticationRequired:
                before = "That was refused. "
                if self._wallet.wants != wants:
                    return
                continue
            except (RemoteError, OSError) as error:
                log.info("what was typed is for the next login: %s", error)
            return


async def _typed(program: str, prompt: str) -> str:
    """Run the program; it is ended when nobody waits for it any more."""
    try:
        process = await asyncio.create_subprocess_exec(
            program,
            prompt,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            start_new_session=True,
        )
    except OSError as error:
        log.warning("%s cannot ask: %s", program, error)
        return ""
    assert process.stdout is not None
    try:
        output = await process.stdout.readline()
        return askpass.typed(output, await process.wait())
    except ValueError:  # no end of the line
        return ""
    finally:
        if process.returncode is None:
            os.killpg(process.pid, signal.SIGKILL)
            await process.wait()
