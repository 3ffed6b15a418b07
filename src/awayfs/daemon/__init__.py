"""The composition root: one process serves one mount."""
