"""What every plug-in of a room keeps to, as sentences that can be run: the contracts, for those who write plug-ins."""
