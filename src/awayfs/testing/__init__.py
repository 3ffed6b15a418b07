"""Stand-ins for tests: a fake kernel, faulty remotes."""
