"""Who may come in: what the two ends of a link know of each other, and the answer to ZAP's question (ZeroMQ RFC 27).

On `tcp` both ends prove their CURVE keys. On `ipc`, in a private folder, each direction of each link has a random
token (PLAIN). Whoever shows neither is refused at the handshake; whoever does is named by us, never by himself.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass

from p2pfl.messages import PeerId


@dataclass(frozen=True)
class Introduction:
    """What one end of a link must know of the other: where it listens, what to show it, what it will show.

    On `tcp` both are its public CURVE key; on `ipc` they are the tokens of the link's two directions.
    """

    endpoint: str
    show: bytes
    expect: bytes


def introduce(there: str, here: str, their_key: bytes, our_key: bytes) -> tuple[Introduction, Introduction]:
    """The two ends of a link, for `here` and for `there`; on ipc, with fresh tokens."""
    if their_key:
        return Introduction(there, their_key, their_key), Introduction(here, our_key, our_key)
    to, fro = secrets.token_hex(32).encode(), secrets.token_hex(32).encode()
    return Introduction(there, to, fro), Introduction(here, fro, to)


class Door:
    """Lets in who shows the credential of a neighbour, and says which neighbour that is."""

    def __init__(self) -> None:
        self._welcome: dict[bytes, PeerId] = {}

    def welcome(self, peer: PeerId, credential: bytes) -> None:
        """Whoever shows this from now on is `peer`."""
        self._welcome[credential] = peer

    def answer(self, request: Sequence[bytes]) -> list[bytes]:
        """ZAP's reply to a request: version, id, domain, address, identity, mechanism, credentials."""
        version, number, _, _, _, mechanism, *credentials = request
        shown = credentials[-1] if mechanism in (b"CURVE", b"PLAIN") and credentials else b""
        peer = self._welcome.get(shown)
        verdict = [b"400", b"not a neighbour", b""] if peer is None else [b"200", b"OK", str(peer).encode()]
        return [version, number, *verdict, b""]
