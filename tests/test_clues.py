"""What mail tells of others' steps, against those steps: the oracle takes them once more, on the victim's true batches.

Flows are driven by hand; each clue is made of the notes of a curious peer, and of nothing that its mail did not bring.
Shapes: D parameters, S numbers on the wire, O numbers seen.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import torch
from test_algorithms import HEAVY, PLAIN, Gradients, play, world
from torch import Tensor

from p2pfl.attacks.idlg import Idlg
from p2pfl.evidence import HEAD, MATCHED, MEMORYLESS, SERVER, STATEFUL, Clue, Notes, Part, Sight, Telltale
from p2pfl.evidence import PLAIN as AS_IT_IS
from p2pfl.messages import HUB, PeerId
from p2pfl.plugins import Choice
from p2pfl.runtime.insight import blank, common_start, place
from p2pfl.runtime.spying import Curious, note
from p2pfl.runtime.world import World
from p2pfl.scenario import Malice

SKETCH: Any = {"countsketch": {"ratio": 0.5}}
MOMENTUM = {"batch": 8, "lr": 0.1, "momentum": 0.6, "weight_decay": 0.02, "local_steps": 1}


NEVER = Malice((0,), Choice("idlg", Idlg()), rounds=(10**6,))
"""For its sake notes are taken, and nothing is worked out."""


def spied(
    made: World, curious: tuple[PeerId, ...], rounds: int, deaths: Mapping[PeerId, int] | None = None
) -> tuple[Telltale, Notes]:
    """The notes of these peers after so many rounds."""
    seats = {i: made.seat(i) for i in made.roles}
    notes = blank(made, curious)
    flows = {i: seat.flow for i, seat in seats.items()}
    at = place(made, curious, seats[curious[0]].me.private)
    flows |= {i: Curious(flows[i], made.settings, (NEVER,), False, at, notes, common_start(made)) for i in curious}
    play(flows, {i: seat.me for i, seat in seats.items()}, rounds, deaths)
    return at.telltale, notes


def taken(twin: Gradients, part: Part) -> Tensor:
    """The displacement of a part on the examples that its peer truly held, step by step, in float64."""
    point_S, m_S = part.at.double(), part.momentum_S
    m_S = torch.zeros_like(point_S) if m_S is None else m_S.double()
    total_S = torch.zeros_like(point_S)
    for k, lr in enumerate(part.lrs):
        _, g_D = twin.of(part.peer, part.first + k, part.up(point_S))
        m_S = part.momentum * m_S + part.down(g_D) + part.weight_decay * point_S
        total_S, point_S = total_S - lr * m_S, point_S - lr * m_S
        if k == 0 and part.shift_S is not None:
            point_S = point_S + part.shift_S.double()
    return total_S


def off(twin: Gradients, sight: Sight) -> float:
    """How far what was seen is from what the true examples would show, of its size."""
    shown_O = sight.seen(sum((part.share * taken(twin, part) for part in sight.parts), torch.zeros(1)))
    return float((sight.moved_O - shown_O).norm() / shown_O.norm())


def errors(twin: Gradients, clue: Clue | None) -> dict[str, float]:
    assert clue is not None
    return {sight.reading: off(twin, sight) for sight in clue.sights}


def alone(clue: Clue | None, victim: PeerId) -> bool:
    """Whether the steps of nobody else are unknown."""
    return clue is not None and all([part.peer for part in sight.parts] == [victim] for sight in clue.sights)


EXACT = 2e-4


@pytest.mark.parametrize("training", [PLAIN, HEAVY, MOMENTUM], ids=["plain", "heavy", "momentum"])
def test_where_all_partners_are_heard_a_neighbours_steps_are_exact_in_every_round(training: Mapping[str, Any]) -> None:
    made = world(training, peers=4, topology="complete", rounds=5)
    (telltale, notes), twin = spied(made, (0,), 5), Gradients(made)
    heavy_after_the_first = training is HEAVY  # of several steps the last momentum is only taken for the mean one
    for r in range(1, 5):
        for victim in (1, 2, 3):
            clue = telltale.clue(notes, victim, r)
            assert alone(clue, victim)
            assert errors(twin, clue)[AS_IT_IS] < (0.5 if heavy_after_the_first and r > 1 else EXACT), (r, victim)


def test_on_a_ring_the_first_round_is_exact_and_later_ones_name_the_unseen_steps() -> None:
    made = world(PLAIN, peers=6, topology="ring", rounds=5)
    (telltale, notes), twin = spied(made, (0,), 5), Gradients(made)
    assert alone(telltale.clue(notes, 1, 1), 1)
    assert errors(twin, telltale.clue(notes, 1, 1))[AS_IT_IS] < EXACT
    second = telltale.clue(notes, 1, 2)
    assert second is not None
    assert [(part.peer, part.first) for part in second.sights[0].parts] == [(1, 1), (2, 0)]
    assert errors(twin, second)[AS_IT_IS] < EXACT


def test_what_an_attack_found_out_is_known_in_later_rounds() -> None:
    made = world(PLAIN, peers=6, topology="ring", rounds=5)
    (telltale, notes), twin = spied(made, (0,), 5), Gradients(made)
    for r in (2, 3, 4):
        clue = telltale.clue(notes, 1, r)
        assert clue is not None
        parts = clue.sights[0].parts
        assert parts[0].peer == 1
        assert parts[0].first == r - 1
        assert errors(twin, clue)[AS_IT_IS] < EXACT, r
        notes.solved.update({(part.peer, part.first): taken(twin, part).float() for part in parts})
    assert [(part.peer, part.first) for part in parts] == [(1, 3), (2, 2), (3, 1), (4, 0)]  # one more a round


def test_the_momentum_of_unseen_partners_is_known_once_their_steps_are() -> None:
    made = world({**MOMENTUM, "weight_decay": 0.0}, peers=6, topology="ring", rounds=5)
    (telltale, notes), twin = spied(made, (0,), 5), Gradients(made)
    for r in (1, 2, 3, 4):
        clue = telltale.clue(notes, 1, r)
        assert clue is not None
        assert errors(twin, clue)[AS_IT_IS] < EXACT, r
        parts = clue.sights[0].parts
        notes.solved.update({(part.peer, part.first): taken(twin, part).float() for part in parts})


def test_whoever_is_dead_pulls_on_nobody() -> None:
    made = world(PLAIN, peers=5, topology="complete", rounds=6)
    (telltale, notes), twin = spied(made, (0,), 6, deaths={4: 3}), Gradients(made)
    for r in range(1, 6):
        clue = telltale.clue(notes, 1, r)
        assert alone(clue, 1)
        assert errors(twin, clue)[AS_IT_IS] < EXACT, r
    assert telltale.clue(notes, 4, 3) is None


def test_two_who_collude_on_both_sides_of_a_peer_read_all_that_it_does() -> None:
    made = world(PLAIN, peers=6, topology="ring", rounds=5)
    (telltale, notes), twin = spied(made, (0, 2), 5), Gradients(made)
    for r in range(1, 5):
        clue = telltale.clue(notes, 1, r)
        assert alone(clue, 1)
        assert clue is not None
        assert clue.threat == "coalition"
        assert errors(twin, clue)[AS_IT_IS] < EXACT


def test_without_a_common_start_unseen_partners_are_guessed_and_that_is_said() -> None:
    made = world(PLAIN, peers=6, topology="ring", rounds=3, init="own")
    (telltale, notes), twin = spied(made, (0,), 3), Gradients(made)
    clue = telltale.clue(notes, 1, 1)
    assert clue is not None
    assert alone(clue, 1)
    assert clue.holds.endswith("and where the others are, which is guessed to be where it is")
    assert errors(twin, clue)[AS_IT_IS] > 0.5
    assert telltale.clue(notes, 3, 1) is None


def test_late_in_a_run_unseen_partners_are_guessed_and_nothing_is_replayed_from_its_beginning() -> None:
    made = world({**PLAIN, "batch": 1}, peers=6, topology="ring", rounds=400)
    telltale, notes = spied(made, (0,), 400)
    clue = telltale.clue(notes, 1, 399)
    assert clue is not None
    assert "guessed to be where it is" in clue.holds
    assert set(telltale.heard(notes, 400)) == {0, 1, 5}


@pytest.mark.parametrize("training", [PLAIN, {**PLAIN, "local_steps": 3}], ids=["one step", "three steps"])
def test_partners_in_two_rounds_running_read_each_other(training: Mapping[str, Any]) -> None:
    made = world({**training, "lr": 0.05}, peers=3, algorithm={"leasgd": {"rho": 4.0, "k": 2}}, rounds=12)
    (telltale, notes), twin = spied(made, (0,), 12), Gradients(made)
    clues = [telltale.clue(notes, victim, r) for r in range(1, 12) for victim in (1, 2)]
    found = [clue for clue in clues if clue is not None]
    sure = [clue for clue in found if alone(clue, clue.victim)]
    assert sure
    assert all(errors(twin, clue)[AS_IT_IS] < EXACT for clue in sure)


@pytest.mark.parametrize("training", [PLAIN, HEAVY], ids=["plain", "heavy"])
@pytest.mark.parametrize("sketch", ["dense", SKETCH], ids=str)
@pytest.mark.parametrize("keys", ["shared", "own"])
def test_a_hub_reads_every_member_exactly(training: Mapping[str, Any], sketch: Any, keys: str) -> None:
    if sketch == "dense" and keys == "own":
        return
    made = world(training, peers=3, algorithm={"fedavg": {"keys": keys}}, sketch=sketch, rounds=3)
    (telltale, notes), twin = spied(made, (HUB,), 3), Gradients(made)
    for r in (1, 2, 3):
        for victim in (0, 1, 2):
            found = errors(twin, telltale.clue(notes, victim, r))
            if sketch == "dense":
                assert found[AS_IT_IS] < EXACT
            else:
                assert list(found) == [SERVER, MATCHED, HEAD]
                assert max(found[MATCHED], found[HEAD]) < EXACT
                assert found[SERVER] > 0.3


@pytest.mark.parametrize("keys", ["shared", "own"])
def test_of_two_members_each_reads_the_other(keys: str) -> None:
    made = world(PLAIN, peers=2, algorithm={"fedavg": {"step": 0.8, "keys": keys}}, sketch=SKETCH, rounds=4)
    (telltale, notes), twin = spied(made, (0,), 4), Gradients(made)
    first = errors(twin, telltale.clue(notes, 1, 1))
    assert set(first) == {MEMORYLESS, SERVER, STATEFUL, MATCHED, HEAD}
    if keys == "shared":
        assert first[MATCHED] < EXACT
        assert first[HEAD] < EXACT
    assert first[MEMORYLESS] > first[STATEFUL]
    made = world(HEAVY, peers=2, algorithm="fedavg", rounds=4)
    (telltale, notes), twin = spied(made, (0,), 4), Gradients(made)
    assert errors(twin, telltale.clue(notes, 1, 2))[AS_IT_IS] < EXACT


def test_of_many_members_one_reads_the_sum() -> None:
    made = world(PLAIN, peers=4, algorithm="fedavg", partition={"dirichlet": {"alpha": 0.5}}, rounds=3)
    (telltale, notes), twin = spied(made, (2,), 3), Gradients(made)
    clue = telltale.clue(notes, 0, 2)
    assert clue is not None
    assert [part.peer for part in clue.sights[0].parts] == [0, 1, 3]
    assert clue.threat == "star peer"
    assert errors(twin, clue)[AS_IT_IS] < EXACT


@pytest.mark.parametrize("init", ["shared", "own"])
def test_the_hub_of_elastics_reads_every_member_and_members_are_not_asked(init: str) -> None:
    made = world(PLAIN, peers=3, algorithm="easgd", rounds=4, init=init)
    (telltale, notes), twin = spied(made, (HUB,), 4), Gradients(made)
    for r in (1, 2, 3):
        for victim in (0, 1, 2):
            clue = telltale.clue(notes, victim, r)
            assert alone(clue, victim)
            assert errors(twin, clue)[AS_IT_IS] < EXACT
    assert telltale.suspects(made.seat(HUB).me) == (0, 1, 2)


def test_under_a_sketch_a_neighbour_with_the_key_reads_the_first_round_exactly() -> None:
    made = world(PLAIN, peers=4, topology="complete", sketch=SKETCH, rounds=8)
    (telltale, notes), twin = spied(made, (0,), 8), Gradients(made)
    first = errors(twin, telltale.clue(notes, 1, 1))
    assert set(first) == {MEMORYLESS, SERVER, STATEFUL, MATCHED, HEAD}
    assert first[MATCHED] < EXACT
    later = errors(twin, telltale.clue(notes, 1, 6))
    assert set(later) == {MEMORYLESS, STATEFUL, MATCHED, HEAD}
    assert later[MATCHED] < later[MEMORYLESS]
    assert later[STATEFUL] < later[MEMORYLESS]


@pytest.mark.parametrize("sketch", ["dense", SKETCH], ids=str)
@pytest.mark.parametrize("training", [PLAIN, MOMENTUM], ids=["plain", "momentum"])
def test_notes_that_grow_too_large_forget_what_nobody_waits_for_and_tell_the_same_afterwards(
    training: Mapping[str, Any], sketch: Any
) -> None:
    made = world(training, peers=4, topology="complete", sketch=sketch, rounds=20)
    (telltale, notes), twin = spied(made, (0,), 20), Gradients(made)
    whole = errors(twin, telltale.clue(notes, 1, 19))
    short = blank(made, (0,))
    short.origin_D, short.starts = notes.origin_D, notes.starts
    for r, page in notes.pages[0].items():
        if r == 15:
            short.awaited["an attack"] = 3
        note(telltale, short, page, most_bytes=1)
    assert list(short.pages[0]) == list(range(4, 21))  # ten at least; and from round 15 on nothing was forgotten
    short.awaited.clear()
    note(telltale, short, notes.pages[0][20], most_bytes=1)
    assert list(short.pages[0]) == list(range(10, 21))
    assert errors(twin, telltale.clue(short, 1, 19)) == whole


def test_weights_that_a_graph_names_and_inertia_are_taken_into_account() -> None:
    made = world(PLAIN, peers=4, topology="complete", algorithm={"dpsgd": {"inertia": 0.3}}, rounds=5)
    (telltale, notes), twin = spied(made, (3,), 5), Gradients(made)
    for r in range(1, 5):
        assert errors(twin, telltale.clue(notes, 1, r))[AS_IT_IS] < EXACT


def test_what_was_heard_are_the_parameters_that_were_posted() -> None:
    made = world(PLAIN, peers=4, topology="ring", rounds=3)
    telltale, notes = spied(made, (0,), 3)
    heard = telltale.heard(notes, 2)
    assert set(heard) == {0, 1, 3}
    sent = notes.pages[0][2].message(1, "params")
    assert sent is not None
    assert torch.equal(heard[1], sent.tensors["params"])
