"""One adapter for each protocol a server may speak, and the process it runs in.

The daemon holds an ``isolated`` remote; it talks (``protocol``, ``channel``) to a ``worker``
process, in which ``opening`` builds the adapter that a URL asks for: ``directory`` for
``dir:`` or ``sftp`` for ``sftp:``, each with its ``directory_*`` or ``sftp_*`` parts. An
adapter may hang; the worker is then killed, and the mount goes on.
"""
