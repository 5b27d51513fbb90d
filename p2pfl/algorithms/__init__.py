"""How a peer learns: one algorithm per file."""
