"""Scenarios that come with the project; `p2pfl launch quickstart` finds them by name."""
