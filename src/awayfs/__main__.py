"""``python -m awayfs``: the same as the ``awayfs`` command."""

from awayfs.cli.main import main

if __name__ == "__main__":
    main()
