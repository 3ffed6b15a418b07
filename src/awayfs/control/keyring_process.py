"""``python -m awayfs.control.keyring_process``: one look into the user's keyring, or one entry.

In a process of its own, because a keyring may wait for a dialogue that nobody sees, and a process
can be ended. Standard input names what is looked for, a line of JSON (``{"service": ...,
"user": ...}``), with ``"secret"`` what is to be kept; standard output has the answer:
``{"secret": ...}``, null where there is none, or ``{"error": one line}``.

To look asks nobody: a keyring that is locked stays so, and is said to be. A dialogue that nobody
called for, and that is gone after three seconds, helps nobody.
"""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

from awayfs.control import keyring_lock

WITHIN_S = 3.0
KEPT_WITHIN_S = 120.0
"""A person who keeps a secret may be asked to open the keyring for it."""
PASSWORDS = "awayfs"
PASSPHRASES = "awayfs-passphrase"
"""Names of the services that secrets are kept for, each by ``user@host`` or ``user@host:port``."""
NOT_INSTALLED = "the library is not installed (pip install 'awayfs[keyring]')"
NOT_RUNNING = "no keyring service is running"
LOCKED = "it is locked; unlock it, then it is looked into again"
_SECRET_SERVICE = {"keyring.backends.SecretService", "keyring.backends.libsecret"}


def account(user: str, host: str, port: int | None) -> str:
    """Whose secret it is, as a keyring has it."""
    return f"{user}@{host}" + (f":{port}" if port else "")


def look_up(service: str, user: str) -> tuple[str, str]:
    """A secret and a complaint, one of them empty or both; blocks, at most ``WITHIN_S`` seconds."""
    answer = _ask({"service": service, "user": user}, WITHIN_S)
    return str(answer.get("secret") or ""), str(answer.get("error") or "")


def keep(service: str, user: str, secret: str) -> str:
    """Keep a secret; a complaint, or nothing. Blocks, at most ``KEPT_WITHIN_S`` seconds."""
    question = {"service": service, "user": user, "secret": secret}
    return str(_ask(question, KEPT_WITHIN_S).get("error") or "")


def _ask(question: dict[str, str], within_s: float) -> dict[str, Any]:
    try:
        done = subprocess.run(
            [sys.executable, "-P", "-m", __name__],
            input=json.dumps(question).encode(),
            capture_output=True,
            timeout=within_s,
            check=False,
        )
        answer = json.loads(done.stdout)
        return answer if isinstance(answer, dict) else {"error": "it could not be asked"}
    except subprocess.TimeoutExpired:
        return {"error": f"no answer in {within_s:g} s: is it locked?"}
    except (OSError, ValueError):
        return {"error": "it could not be asked"}


def _answer(service: str, user: str, secret: str | None = None) -> dict[str, str | None]:
    try:
        import keyring
        from keyring.backends.fail import Keyring as Nothing
    except ImportError:
        return {"error": NOT_INSTALLED}
    try:
        if isinstance(keyring.get_keyring(), Nothing):
            return {"error": NOT_RUNNING}
        if secret is not None:
            keyring.set_password(service, user, secret)
            return {"secret": None}
        lock = keyring_lock.look(start=True) if _is_secret_service(keyring.get_keyring()) else None
        if lock == keyring_lock.Lock.LOCKED:
            return {"error": LOCKED}
        if lock == keyring_lock.Lock.MISSING:
            return {"secret": None}
        return {"secret": keyring.get_password(service, user)}
    except Exception as error:
        return {"error": " ".join(f"{type(error).__name__}: {error}".split())}


def _is_secret_service(backend: Any) -> bool:
    """Whether the library would have it ask a person to open it; it may be one of several."""
    modules = {type(one).__module__ for one in (backend, *getattr(backend, "backends", ()))}
    return not _SECRET_SERVICE.isdisjoint(modules)


if __name__ == "__main__":
    sys.stdout.write(json.dumps(_answer(**json.loads(sys.stdin.read()))))
