"""The live volume: what a mounted share does, without FUSE bytes."""
