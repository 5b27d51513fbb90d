"""Runs side by side: what differs between them, and how sure one can be of what came of it."""
