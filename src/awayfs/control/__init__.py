"""The daemon's interface for commands."""
