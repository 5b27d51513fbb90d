"""How parameters travel: one pair of linear maps per file."""
