"""Models: one per file."""
