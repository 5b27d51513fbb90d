"""One peer before it starts: how long it trains, how it meets its neighbours, what it says and what it hears."""

from __future__ import annotations

import itertools
from collections.abc import Generator
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import pydantic
import pytest
import torch
from torch import Tensor

from p2pfl.aggregators.mean import Mean
from p2pfl.contracts import Layout, Pair, Sketch, Slot, Trained, Training
from p2pfl.errors import LocalError
from p2pfl.messages import HUB, Exchange, Mail, Message, PeerId, Step
from p2pfl.peer import KEY_BYTES, Peer, Roster
from p2pfl.seeds import Seeds
from p2pfl.sketches.countsketch import CountSketch
from p2pfl.sketches.dense import Dense

LAYOUT: Layout = (Slot("w", (3, 8)), Slot("b", (3,)))
D = 27


@dataclass
class Line:
    """A `Task` that walks: every step moves each parameter by `stride`, and its loss is the number of the batch."""

    layout: Layout = LAYOUT
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    examples: int = 100
    stride: float = 1.0
    batches: list[int] = field(default_factory=list)

    def start(self, seeds: Seeds) -> Tensor:
        return torch.randn(D, generator=seeds.torch("x"))

    def steps(
        self, x: Tensor, m: Tensor | None, first: int, count: int, pair: Pair | None = None, key: bytes = b""
    ) -> Trained:
        self.batches += range(first, first + count)
        return Trained(x + count * self.stride, m, first + (count - 1) / 2 if count else float("nan"))

    def step(self, x_D: Tensor, m_D: Tensor | None, at: int) -> Trained:
        self.batches.append(at)
        return Trained(torch.full_like(x_D, self.stride), m_D, at * self.stride)

    def lr(self, at: int) -> float:
        return 1 / (1 + at)

    def evaluate(self, x_D: Tensor, split: str) -> dict[str, float]:
        return {}


def peer(
    i: PeerId,
    neighbours: tuple[PeerId, ...],
    sketch: Sketch,
    training: Training | None = None,
    init: Literal["shared", "own"] = "shared",
    **task: Any,
) -> Peer:
    root = Seeds.of(3)
    weights = dict.fromkeys(neighbours, 0.25)
    roster = Roster((0, 1, 2, 3), dict.fromkeys(range(4), 100), ())
    taught = training or Training()
    shared, private = root.child("shared"), root.child("peer", i)
    return Peer(i, neighbours, weights, roster, Line(**task), sketch, Mean(), taught, init, shared, private)


def returned(flow: Generator[Step, Mail, Any], mail: Mail | None) -> Any:
    with pytest.raises(StopIteration) as end:
        next(flow) if mail is None else flow.send(mail)
    return end.value.value


def met(peers: dict[PeerId, Peer], deaf: tuple[PeerId, ...] = ()) -> dict[PeerId, Peer]:
    """The same peers after they met; nobody hears the `deaf`."""
    flows = {i: one.meet() for i, one in peers.items()}
    steps = {i: next(flow) for i, flow in flows.items()}
    assert all(isinstance(step, Exchange) for step in steps.values())
    mails = {
        i: {j: steps[j].post[i] for j in one.neighbours if j not in deaf}  # type: ignore[union-attr]
        for i, one in peers.items()
    }
    return {i: returned(flow, mails[i]) for i, flow in flows.items()}


def triangle(sketch: Sketch) -> dict[PeerId, Peer]:
    return {i: peer(i, tuple(j for j in range(3) if j != i), sketch) for i in range(3)}


# Training


def test_a_round_is_local_steps_or_whole_passes_over_ones_own_examples() -> None:
    assert Training(local_steps=7).steps(100) == 7
    assert Training(batch=32, local_epochs=2).steps(100) == 8
    assert Training(batch=50, local_epochs=1).steps(100) == 2
    assert Training(batch=500, local_epochs=3).steps(100) == 3
    assert Training().steps(100) == 1


def test_steps_and_epochs_exclude_each_other() -> None:
    with pytest.raises((ValueError, pydantic.ValidationError), match="exclude each other"):
        Training(local_steps=1, local_epochs=1)


@pytest.mark.parametrize("local_steps", [1, 2, 5])
def test_every_batch_is_used_once_and_in_order(local_steps: int) -> None:
    me = peer(0, (1,), Dense(), Training(local_steps=local_steps))
    x_D = torch.zeros(D)
    for r in (1, 2, 3):
        local = me.steps(x_D, None, r, me.local_steps - 1)
        last = me.step(local.x_D, None, r)
        x_D = local.x_D + last.x_D
        assert me.mean_loss(local, last) == pytest.approx((r - 1) * local_steps + (local_steps - 1) / 2)
    assert me.task.batches == list(range(3 * local_steps))  # type: ignore[attr-defined]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_parameters_that_are_not_finite_end_in_an_error_that_names_the_learning_rate(value: float) -> None:
    me = peer(0, (1,), Dense(), Training(lr=0.5, local_steps=2), stride=value)
    for go in (
        lambda: me.steps(torch.zeros(D), None, 1, 1),
        lambda: me.sketched_steps(torch.zeros(D), 1, b""),
        lambda: me.step(torch.zeros(D), None, 1),
    ):
        with pytest.raises(LocalError, match=r"lower training\.lr, which is 0\.5"):
            go()  # type: ignore[no-untyped-call]


def test_large_parameters_are_finite_even_where_their_sum_is_not() -> None:
    me = peer(0, (1,), Dense(), Training(local_steps=2), stride=0.0)
    x_D = torch.full((D,), 3e38)
    assert torch.equal(me.steps(x_D, None, 1, 1).x_D, x_D)


def test_all_start_from_one_point_or_each_from_its_own() -> None:
    shared = [peer(i, (), Dense()).first_point() for i in range(2)]
    own = [peer(i, (), Dense(), init="own").first_point() for i in range(2)]
    assert torch.equal(*shared)
    assert not torch.equal(*own)


# Meeting


def test_both_ends_of_a_link_agree_on_a_secret_that_no_other_link_has() -> None:
    peers = met(triangle(CountSketch()))
    for i, j in itertools.combinations(range(3), 2):
        assert peers[i].secrets[j] == peers[j].secrets[i]
    secrets = {secret for one in peers.values() for secret in one.secrets.values()}
    assert len(secrets) == 3
    assert all(len(secret) == KEY_BYTES for secret in secrets)


def test_neither_end_alone_decides_the_secret() -> None:
    usual = met(triangle(CountSketch()))[0].secrets[1]
    for changed in (0, 1):
        peers = triangle(CountSketch())
        peers[changed] = replace(peers[changed], private=Seeds.of(99))
        assert met(peers)[0].secrets[1] != usual


def test_a_key_is_of_one_link_and_one_round_and_the_same_at_both_ends() -> None:
    peers = met(triangle(CountSketch()))
    keys = {(min(i, j), max(i, j), r): peers[i].key(j, r) for i in range(3) for j in range(3) if i != j for r in (1, 2)}
    assert all(peers[j].key(i, r) == key for (i, j, r), key in keys.items())
    assert len(set(keys.values())) == 6


def test_who_did_not_come_has_no_secret_and_is_not_spoken_to() -> None:
    peers = met(triangle(CountSketch()), deaf=(2,))
    assert peers[0].reachable((1, 2)) == (1,)


def test_without_a_key_nobody_needs_to_meet() -> None:
    for me in (peer(0, (1,), Dense()), peer(0, (HUB,), CountSketch()), peer(HUB, (0, 1), CountSketch())):
        assert returned(me.meet(), None) is me
        assert me.reachable(me.neighbours) == me.neighbours
    assert peer(0, (1,), Dense()).key(1, 5) == b""
    assert peer(HUB, (0,), Dense()).fresh_key(1) == b""


def test_the_hubs_keys_are_new_every_round() -> None:
    hub = peer(HUB, (0,), CountSketch())
    keys = {hub.fresh_key(r) for r in range(1, 20)}
    assert len(keys) == 19
    assert all(len(key) == KEY_BYTES for key in keys)


# Saying and merging


@pytest.mark.parametrize("sketch", [Dense(), CountSketch()], ids=repr)
def test_a_difference_is_the_damped_sketch_of_what_the_other_has_more(sketch: Sketch) -> None:
    peers = met(triangle(sketch)) if sketch.keyed else triangle(sketch)
    x = {i: torch.randn(D, generator=torch.Generator().manual_seed(i)) for i in range(3)}
    said = {(i, j): peers[i].say("params", 4, x[i], to=j) for i in range(3) for j in range(3) if i != j}
    post = {j: said[0, j] for j in (1, 2)}
    found = peers[0].differences({j: said[j, 0] for j in (1, 2)}, post, 4)
    for j in (1, 2):
        pair, key = peers[0].pair, peers[0].key(j, 4)
        torch.testing.assert_close(found[j], pair.pull(pair.down(x[j] - x[0], key), key))


def test_who_is_absent_adds_nothing_and_nobody_elses_weight_changes() -> None:
    me = peer(0, (1, 2), Dense())
    difference = torch.ones(D)
    assert me.merge({}, me.weights) == 0.0
    assert torch.equal(me.merge({1: difference}, me.weights), 0.25 * difference)  # type: ignore[arg-type]
    assert torch.equal(me.merge({1: difference, 2: difference}, me.weights), 0.5 * difference)  # type: ignore[arg-type]


def test_what_is_said_has_kind_round_and_the_size_of_the_sketch() -> None:
    message = met(triangle(CountSketch(0.5)))[0].say("params", 3, torch.ones(D), to=1)
    assert isinstance(message, Message)
    assert (message.kind, message.round) == ("params", 3)
    assert message.tensors["params"].shape == (3 * 4 + 3,)
