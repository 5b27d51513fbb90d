"""Peer graphs by name: one family per file, and every networkx generator."""
