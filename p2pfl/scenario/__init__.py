"""A scenario: its keys, the strict reading of what a user wrote, and the peer graph it asks for."""

from p2pfl.scenario.door import UNBUILT, digest, dump, located, parse, read, shipped
from p2pfl.scenario.drawing import graph
from p2pfl.scenario.keys import SLOTS, Churn, Evaluate, Scenario

__all__ = [
    "SLOTS",
    "UNBUILT",
    "Churn",
    "Evaluate",
    "Scenario",
    "digest",
    "dump",
    "graph",
    "located",
    "parse",
    "read",
    "shipped",
]
