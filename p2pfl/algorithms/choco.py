"""CHOCO-SGD: gossip whose messages are compressed, each peer correcting what its neighbours think it has.

Source: Koloskova, Stich & Jaggi 2019, "Decentralized Stochastic Optimization and Gossip Algorithms with Compressed
Communication", Algorithm 2; Koloskova, Lin, Stich & Jaggi 2020, "Decentralized Deep Learning with Arbitrary
Communication Compression". The local steps, all of them, are plain SGD; then q_i = Q(x_i - xhat_i) is sent,
xhat_j += q_j for all j in N(i) and i itself, x_i += gamma * sum_j w_ij (xhat_j - xhat_i).

Replicas xhat belong to links, not to peers: both ends of a link hold xhat_i and xhat_j alike. Where all links are there
in all rounds that is the paper's algorithm, and a peer's own replica is one vector, whatever its degree. Where links
change, or a message is lost, only that link's replicas stay behind. A link's replicas begin where everybody knows that
all peers begin, with `init: shared`, else at 0 as in the paper.

A message says how many exchanges made the replicas that it is to correct; a peer counts one where it heard its
neighbour. So equal counts mean equal replicas. Where counts differ, because one end heard the other and not it that
one, the link is out of step: both ends see it, leave it unused that round and begin it anew.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated

import pydantic
import torch
from torch import Tensor

from p2pfl.algorithms._compression import Compression, Compressor
from p2pfl.contracts import Sketch, Training
from p2pfl.messages import Exchange, Form, Mail, Message, PeerId, Report, Step
from p2pfl.peer import Peer, Role

SIXTEENTH = Compression(top_k=1 / 16)


@dataclass(frozen=True, eq=False)
class Link:
    """What both ends hold alike: a replica of either end's parameters, and how many exchanges made them."""

    ours_D: Tensor
    theirs_D: Tensor
    count: int = 0


@dataclass(frozen=True, eq=False)
class State:
    """A peer's parameters and momentum, the links there were so far, and what those that are new begin as."""

    x_D: Tensor
    m_D: Tensor | None
    links: Mapping[PeerId, Link]
    anew: Link


@dataclass(frozen=True)
class CHOCO:
    """Compressed gossip: x_i += gamma * sum_j w_ij (xhat_j - xhat_i), replicas xhat corrected by compressed messages.

    `gamma`, the consensus step size, is by default 1 for 8 bits, and the square root of `top_k`.
    """

    compression: Compression = SIXTEENTH
    gamma: Annotated[float, pydantic.Field(gt=0, le=1)] | None = None
    topology = "ring"

    def roles(self, learners: int) -> dict[PeerId, Role]:
        """Every learner does the same."""
        return {i: Role(self, (i,)) for i in range(learners)}

    def check(self, training: Training, sketch: Sketch, links: Sequence[tuple[PeerId, PeerId]]) -> None:
        """Any connected graph carries it; it compresses what it sends itself."""
        if sketch.keyed:
            raise ValueError("compression is choco's own, and a sketch is another: say 'sketch: dense', or take dpsgd")

    def vectors(self, links: Sequence[tuple[PeerId, PeerId]]) -> float:
        """One message each way on every link, counted as the part of a parameter vector that its bytes are."""
        return 2 * len(links) * self.compression.share

    def start(self, me: Peer) -> State:
        """The first point, at rest; no link yet."""
        x_D = me.first_point()
        known_D = x_D if me.init == "shared" and me.origin is None else torch.zeros_like(x_D)
        return State(x_D, None, {}, Link(known_D, known_D))

    def forms(self, me: Peer, r: int) -> Mapping[str, Form]:
        """A compressed correction, and of which state of the link."""
        return {"update": Form(self.compression.bind(me.task.layout).form, {"sent": int})}

    def round(self, me: Peer, state: State, r: int) -> Generator[Step, Mail, State]:
        """Plain steps, then gossip by what is known of each other."""
        local = me.steps(state.x_D, state.m_D, r, me.local_steps)
        compressor = self.compression.bind(me.task.layout)
        links = {j: state.links.get(j, state.anew) for j in me.neighbours}
        packed = {id(own_D): compressor.pack(local.x_D - own_D) for own_D in distinct(links.values())}
        post = {j: Message("update", r, packed[id(link.ours_D)], {"sent": link.count}) for j, link in links.items()}
        mail = yield Exchange("update", r, post, expect=tuple(post))
        out_of_step = [j for j, message in mail.items() if message.figures["sent"] != links[j].count]
        heard = {j: message for j, message in mail.items() if j not in out_of_step}
        links = corrected(links, post, heard, compressor)
        differences = {j: link.theirs_D - link.ours_D for j, link in links.items()}
        gamma = self.compression.gamma if self.gamma is None else self.gamma
        x_D = local.x_D + gamma * me.merge(differences, me.weights)
        yield Report(r, {"loss": local.loss} | ({"out_of_step": out_of_step} if out_of_step else {}))
        return State(x_D, local.m_D, {**state.links, **dict.fromkeys(out_of_step, state.anew), **links}, state.anew)

    def model(self, state: State) -> Tensor:
        """The peer's own parameters."""
        return state.x_D


def distinct(links: Iterable[Link]) -> list[Tensor]:
    """A peer's own replicas, each once: links that shared all exchanges share one, so it is corrected once."""
    return list({id(link.ours_D): link.ours_D for link in links}.values())


def corrected(
    links: Mapping[PeerId, Link], post: Mapping[PeerId, Message], mail: Mail, compressor: Compressor
) -> dict[PeerId, Link]:
    """The links on which mail came, after it and what was posted; mail that nobody can have packed did not come."""
    ours: dict[int, Tensor | None] = {}
    after = {}
    for j, message in mail.items():
        before = links[j]
        if id(before.ours_D) not in ours:
            ours[id(before.ours_D)] = moved(before.ours_D, post[j], compressor)
        ours_D, theirs_D = ours[id(before.ours_D)], moved(before.theirs_D, message, compressor)
        if ours_D is not None and theirs_D is not None:
            after[j] = Link(ours_D, theirs_D, before.count + 1)
    return after


def moved(replica_D: Tensor, message: Message, compressor: Compressor) -> Tensor | None:
    """`xhat + q`; None where the message makes no sense: a replica that is not finite is none."""
    q_D = compressor.unpack(message.tensors, replica_D.device)
    if q_D is None or not bool(torch.isfinite(q_D.add_(replica_D)).all()):
        return None
    return q_D
