"""What starts the peers: one engine per file."""
