"""Who gets which examples: one rule per file."""
