"""The composition root: one process serves one mount.

``main`` goes from the request on standard input to the end of the mount, ``service`` puts
remote, link, volume, kernel session and control socket together, ``api`` and ``api_*`` answer
commands. ``demo`` is ``awayfs demo``. Nothing imports this package; it imports all others.
"""
