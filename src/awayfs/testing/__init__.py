"""Stand-ins for tests: a kernel without a kernel, and a small file system to serve.

``fake_kernel`` is the other end of /dev/fuse: over a ``fake_connection`` it sends requests, and
``fake_replies`` refuses what a kernel would refuse;
``memory_fs`` and ``memory_mount`` try the FUSE layer without a volume. Nothing else in the
package imports these.
"""
