"""What drives the peers, and what a run leaves."""
