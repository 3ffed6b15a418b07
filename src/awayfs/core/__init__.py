"""Pure rules: values in, values out. No I/O, no clock, no randomness, no threads.

Start with ``types``, ``records`` and ``errors``, which all layers share. Each other module is
one rule with its reasons: what a listing tells (``diff``), what becomes of a record
(``facts``, ``decide``), what has no net effect (``optimise``, ``positions``), what may go out
together (``order``), how modes follow events (``modes``), when to stop and ask (``safety``).
``namespace`` is the slow and obvious model that properties compare the clever ones with.
"""
