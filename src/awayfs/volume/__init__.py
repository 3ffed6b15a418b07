"""The live volume: what a mounted share does, without FUSE bytes.

Local operations: ``tree``, ``files``, ``changes``, all through ``journaling``. From the
server: ``observe``, ``adopt``, ``fetch``, ``hoard``. To the server: ``replay`` with its
``replay_*`` steps, ``parking``, ``revive``, ``resolve``. What they share is in ``context``;
the way to the server is ``link``; ``volume`` puts all of it together and runs the tasks.
docs/ARCHITECTURE.md gives the reading order.
"""
