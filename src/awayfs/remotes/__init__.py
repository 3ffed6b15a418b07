"""One adapter for each protocol a server may speak."""
