"""``python -m awayfs.control.keyring_process``: one look into the user's keyring.

In a process of its own, because a keyring that is locked may wait for a dialogue that nobody
sees, and a process can be ended. Standard input names what is looked for, a line of JSON
(``{"service": ..., "user": ...}``); standard output has the answer: ``{"secret": ...}``, null
where there is none, or ``{"error": one line}``.
"""

from __future__ import annotations

import json
import subprocess
import sys

WITHIN_S = 3.0
PASSWORDS = "awayfs"
PASSPHRASES = "awayfs-passphrase"
"""Names of the services that secrets are kept for, each by ``user@host`` or ``user@host:port``."""
NOT_INSTALLED = "the library is not installed (pip install 'awayfs[keyring]')"


def look_up(service: str, user: str) -> tuple[str, str]:
    """A secret and a complaint, one of them empty or both; blocks, at most ``WITHIN_S`` seconds."""
    question = json.dumps({"service": service, "user": user})
    try:
        done = subprocess.run(
            [sys.executable, "-P", "-m", __name__],
            input=question.encode(),
            capture_output=True,
            timeout=WITHIN_S,
            check=False,
        )
        answer = json.loads(done.stdout)
        return str(answer.get("secret") or ""), str(answer.get("error") or "")
    except subprocess.TimeoutExpired:
        return "", f"no answer in {WITHIN_S:g} s: is it locked?"
    except (OSError, ValueError, AttributeError):
        return "", "it could not be asked"


def _answer(service: str, user: str) -> dict[str, str | None]:
    try:
        import keyring
        from keyring.backends.fail import Keyring as Nothing
    except ImportError:
        return {"error": NOT_INSTALLED}
    try:
        if isinstance(keyring.get_keyring(), Nothing):
            return {"error": "no keyring service is running"}
        return {"secret": keyring.get_password(service, user)}
    except Exception as error:
        return {"error": " ".join(f"{type(error).__name__}: {error}".split())}


if __name__ == "__main__":
    asked = json.loads(sys.stdin.read())
    sys.stdout.write(json.dumps(_answer(asked["service"], asked["user"])))
