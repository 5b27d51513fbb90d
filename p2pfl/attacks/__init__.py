"""How a peer spies on others: one attack a file, chosen by name; see `p2pfl.evidence` for what it is given."""
