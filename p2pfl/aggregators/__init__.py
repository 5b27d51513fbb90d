"""How a peer merges what it is sent: one rule per file."""
