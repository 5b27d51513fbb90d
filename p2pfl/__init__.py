"""Decentralised learning and its security, run for real."""
