"""How a peer spies on others: one attack a file, chosen by name; see `p2pfl.curiosity` for what it is given."""
