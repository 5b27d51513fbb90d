"""What a peer does to what leaves it: one defence a file."""
