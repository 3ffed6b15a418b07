"""``python -m awayfs.daemon``: serve one mount; started by ``awayfs mount``."""

from awayfs.daemon.main import main

if __name__ == "__main__":
    raise SystemExit(main())
