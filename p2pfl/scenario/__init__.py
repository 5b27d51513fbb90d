"""A scenario: its keys, the strict reading of what a user wrote, and the peer graph it asks for."""

from p2pfl.scenario.door import (
    UNBUILT,
    allow_code,
    digest,
    dump,
    located,
    parse,
    plain,
    published,
    read,
    settled,
    shipped,
)
from p2pfl.scenario.drawing import LOOKED_AT, graph, graph_in, graphs, varies
from p2pfl.scenario.keys import SLOTS, Churn, Evaluate, Group, Malice, Save, Scenario, Stop
from p2pfl.scenario.marks import Start
from p2pfl.scenario.publication import PUBLISHED, Published

__all__ = [
    "LOOKED_AT",
    "PUBLISHED",
    "SLOTS",
    "UNBUILT",
    "Churn",
    "Evaluate",
    "Group",
    "Malice",
    "Published",
    "Save",
    "Scenario",
    "Start",
    "Stop",
    "allow_code",
    "digest",
    "dump",
    "graph",
    "graph_in",
    "graphs",
    "located",
    "parse",
    "plain",
    "published",
    "read",
    "settled",
    "shipped",
    "varies",
]
