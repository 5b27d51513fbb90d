"""Bytes and back: one contract, two buses."""
