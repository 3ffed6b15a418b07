"""``python -m awayfs.daemon``: serve one mount; started by ``awayfs mount``.

What is imported is never garbage: looking at it again and again takes a twentieth of the start, and
later on keeps the event loop.
"""

import gc

if __name__ == "__main__":
    gc.disable()
    from awayfs.daemon.main import main

    gc.freeze()
    gc.enable()
    raise SystemExit(main())
