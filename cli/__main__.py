"""`python -m p2pfl.cli`: the command where no script is on the path."""

from . import main

main(prog_name="p2pfl")
