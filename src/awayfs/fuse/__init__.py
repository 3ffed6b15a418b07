"""The kernel protocol, spoken directly on /dev/fuse.

From the bytes up: ``wire`` (the protocol as data), ``requests`` with ``decode``, ``replies``,
``negotiate`` (INIT), ``session`` (the loop that reads, dispatches and answers), ``notify``
and ``passthrough``; ``mount`` mounts and unmounts. None of them knows what a share is: that
begins in ``bridge`` and its ``bridge_*`` parts, which turn requests into calls on the volume.
"""
