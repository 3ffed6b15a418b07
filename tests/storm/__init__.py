"""Two real mounts of a real server in a storm, held against what was promised.

Two clients and somebody on the server work at random on one share. Daemons are killed, links cut,
sessions stopped, volumes taken offline. Then the weather clears: all is decided and sent, the
mounts must show what the server has, and nothing that anybody wrote may be gone, unless somebody
who saw it took it away:

    python -m tests.storm --kind sftp --seed 7         one storm
    python -m tests.storm --kind dir --seeds 7-20      one after the other, of varied sorts

A seed decides what is tried, and in which order. When it happens is up to the machine, so a seed
finds the same again often, not always. The state of a storm that found something is kept: the
operations in ``ops.log``, the servers' files, the clients' state with ``daemon.log``.

``plan`` says what a storm is, ``world`` has its parts. ``actors`` with ``writing`` and ``naming``,
and ``faults``, move them. ``ending`` brings all to rest, ``ledger`` and ``checks`` judge.
``playing`` has the order of it all, and ``keeper`` watches from another process.

It is for root: a mount point must take no writes while nothing is mounted there.
"""
