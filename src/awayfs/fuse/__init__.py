"""The kernel protocol, spoken directly on /dev/fuse."""
