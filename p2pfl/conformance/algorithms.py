"""What every algorithm keeps to, tried on a small run on its own topology, with and without a sketch.

A flow speaks to its neighbours only, in messages of the form that the receiver declares, alters nothing that was
posted, bears silence, and is a function of the seed: then it runs on every engine alike. One that is `asynchronous` has
mail of no round, rests, and takes what has come: who comes first is then a matter of clocks, and alike in virtual time.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping
from functools import lru_cache, partial
from typing import Any

import torch

from p2pfl import plugins
from p2pfl.conformance import _randomness
from p2pfl.conformance._stage import Ledger, Post, played
from p2pfl.messages import HUB, Form, Pause
from p2pfl.metrics.consensus import consensus_distance, consensus_model
from p2pfl.runtime.life import asynchronous

SKETCHES = ("dense", "countsketch")
LEARNERS = (1, 2, 5)
ROUNDS, STILL_ROUNDS = 3, 12
SLOT_OF_DEFENCES = plugins.Slot("defences", "defences")
NARROW = {"countsketch": {"ratio": 0.125}}


def gives_every_shard_to_somebody_who_learns(plugin: Any) -> None:
    """Learners are numbered from 0; beside them there may be a hub."""
    for learners in LEARNERS:
        roles = plugin.roles(learners)
        odd = [i for i in roles if i != HUB and i not in range(learners)]
        assert not odd, f"of {learners} learners it makes a peer {odd[0]}"
        shards = {shard for role in roles.values() for shard in role.shards}
        lost = set(range(learners)) - shards
        assert not lost, f"of {learners} shards nobody holds the shard {min(lost)}"
        assert any(role.evaluated for role in roles.values()), "it has nobody to evaluate"


def names_a_topology_that_there_is(plugin: Any) -> None:
    """The one that a scenario gets which names none."""
    plugins.find("topologies", plugin.topology)


def makes_a_model_of_finite_numbers_every_round(plugin: Any) -> None:
    """One flat vector of as many numbers as the model has parameters."""
    for sketch in SKETCHES:
        ledger = _played(plugin, sketch)
        assert ledger.rows, "no peer reported a round"
        size = sum(slot.size for slot in _world(ledger).layout)
        for (peer, r), model_D in ledger.models.items():
            about = f"the model of peer {peer} after round {r}"
            assert model_D.shape == (size,), f"{about} has the shape {tuple(model_D.shape)}, not ({size},)"
            assert model_D.isfinite().all(), f"{about} is not finite"


def speaks_to_its_neighbours_only(plugin: Any) -> None:
    """Links of the peer graph are all the connections there are."""
    for sketch in SKETCHES:
        ledger = _played(plugin, sketch)
        for post in ledger.posts:
            known = _world(ledger).graph[post.by]
            assert post.to in known, f"peer {post.by} speaks to {post.to}, to whom it has no link"


def posts_messages_of_the_form_that_the_receiver_declares(plugin: Any) -> None:
    """Whatever is of another form is refused before it is read, and counted against the sender."""
    for sketch in SKETCHES:
        ledger = _played(plugin, sketch)
        for post in ledger.posts:
            _insist_formed(ledger, post)


def alters_no_tensor_that_was_posted(plugin: Any) -> None:
    """It may still be on its way, or be another peer's by now."""
    for sketch in SKETCHES:
        for post in _played(plugin, sketch).posts:
            for name, before in post.tensors.items():
                about = f"the tensor {name!r} of a {post.message.kind!r} message from peer {post.by}"
                assert torch.equal(post.message.tensors[name], before), f"{about} was altered after it was posted"


def bears_mail_that_is_lost_and_peers_that_die(plugin: Any) -> None:
    """Who is absent is absent from the mail, in any exchange; nobody else may fail for it."""
    for sketch in SKETCHES:
        for lossy, killed in ((True, ()), (False, (1,)), (True, (0, 2))):
            there = [peer for peer in killed if peer in plugin.roles(4)]
            _attempt(partial(played, plugin, sketch, lossy=lossy, killed=there))


def tells_no_loss_but_through_the_defence(plugin: Any) -> None:
    """What hangs on a peer's examples leaves it as parameters, or as what `me.told` makes of a loss."""
    ledger = played(plugin, rounds=4, defences=(SLOT_OF_DEFENCES.choose({"dp": {"noise": 1.0, "delta": 1e-3}}),))
    losses = {peer: set[float]() for peer, _, _ in ledger.rows}
    for peer, _, row in ledger.rows:
        if isinstance(row.get("loss"), float):
            losses[peer].add(row["loss"])
    for post in ledger.posts:
        numbers = [t.double().flatten() for name, t in post.tensors.items() if name != "params"]
        said = {float(x) for tensor in numbers for x in tensor} | set(post.message.figures.values())
        leaked = {loss for loss in losses[post.by] for x in said if isinstance(x, float) and abs(x - loss) < 1e-6}
        about = f"a {post.message.kind!r} message of peer {post.by}"
        assert not leaked, (
            f"{about} holds its training loss {min(leaked):.4g} as it is: send what 'me.told' makes of it"
        )


def never_drives_peers_apart(plugin: Any) -> None:
    """Peers that begin apart and hardly learn come no further apart, under a sketch as without, and keep their mean.

    Who rebuilds a sketched model by `up` and averages it drives them apart: `me.differences` are what to merge.
    """
    for sketch in ("dense", NARROW):
        ledger = played(plugin, sketch, rounds=STILL_ROUNDS, still=True)
        judged = [i for i, role in plugin.roles(4).items() if role.evaluated]
        first, last = (consensus_distance([ledger.models[i, r] for i in judged]) for r in (1, STILL_ROUNDS))
        grown = f"from {first:.3g} in round 1 to {last:.3g} in round {STILL_ROUNDS}"
        about = f"with the sketch {sketch} peers that hardly learn drift apart"
        assert last <= 1.5 * first + 1e-6, f"{about}, their consensus distance goes {grown}"
        means_D = [consensus_model([ledger.models[i, r] for i in judged]) for r in (1, STILL_ROUNDS)]
        moved = float((means_D[1] - means_D[0]).norm() / means_D[0].norm())
        assert moved <= 0.01, (
            f"with the sketch {sketch} the mean of peers that hardly learn moves by {moved:.2g} of its norm"
        )


def gives_the_same_figures_for_the_same_seed(plugin: Any) -> None:
    """And draws from the streams of its peer alone."""
    for sketch in SKETCHES:
        with _randomness.left_alone():
            first, again = played(plugin, sketch), played(plugin, sketch)
        _insist_alike(first, again, "run twice with the same seed")


def gives_the_figures_of_the_simulation_in_threads(plugin: Any) -> None:
    """What it computes must not depend on who comes first, unless it says that it is asynchronous."""
    if _drifts(plugin):
        return
    for sketch in SKETCHES:
        simulated = _played(plugin, sketch)
        for post in simulated.posts:
            _insist_formed(simulated, post)  # of another form it would be refused, and waited for
        _insist_alike(simulated, played(plugin, sketch, "inproc"), "in threads")


def sends_no_more_vectors_than_it_says(plugin: Any) -> None:
    """`vectors(links)` is what `p2pfl check` reckons the traffic of a round by."""
    ledger = _played(plugin, "dense")
    said = plugin.vectors(_world(ledger).links)
    sent = Counter(post.round for post in ledger.posts if "params" in post.message.tensors)
    if _drifts(plugin):  # peers are in different rounds at any time
        assert sent.total() <= said * ROUNDS, (
            f"in {ROUNDS} rounds it sends {sent.total()} vectors, and says {said} each"
        )
        return
    most = max(sent, key=lambda r: sent[r], default=0)
    assert sent[most] <= said, f"in round {most} it sends {sent[most]} vectors, and says {said}"


def rests_and_takes_what_has_come_only_where_it_says_that_it_is_asynchronous(plugin: Any) -> None:
    """So does mail of no round: elsewhere it would be refused. A rest takes so many seconds, and comes to its end."""
    ledger = _played(plugin, "dense")
    loose = [post for post in ledger.posts if post.message.round == 0]
    marked = {i for i, flow in ledger.flows.items() if asynchronous(flow)}
    unmarked = ({peer for peer, _ in ledger.rests} | {post.by for post in loose}) - marked
    assert not unmarked, f"the flow of peer {min(unmarked)} does so, and has no 'asynchronous = True'"
    for peer, step in ledger.rests:
        if isinstance(step, Pause):
            sane = math.isfinite(step.seconds) and step.seconds >= 0
            assert sane, f"peer {peer} rests for {step.seconds} s: that must be finite, and not negative"


def _drifts(plugin: Any) -> bool:
    """Whether its peers have no rounds in common."""
    return any(asynchronous(role.flow) for role in plugin.roles(4).values())


@lru_cache(maxsize=len(SKETCHES))
def _played(plugin: Any, sketch: str) -> Ledger:
    """One run, for every check that only looks at it."""
    return played(plugin, sketch, rounds=ROUNDS)


def _world(ledger: Ledger) -> Any:
    assert ledger.plan is not None
    return ledger.plan.world


def _attempt(play: Callable[[], Ledger]) -> None:
    try:
        play()
    except Exception as error:  # whatever the flow raises
        text = f"it fails where mail is missing, with {type(error).__name__}: {error}"
        raise AssertionError(text).with_traceback(error.__traceback__) from error


def _insist_formed(ledger: Ledger, post: Post) -> None:
    message, heard = post.message, ledger.mes.get(post.to, {})
    about = f"a {message.kind!r} message of round {message.round} from peer {post.by} to {post.to}"
    me = heard.get(message.round) or next(iter(heard.values()))
    forms: Mapping[str, Form] = ledger.flows[post.to].forms(me, message.round)
    assert message.kind in forms, f"{about}: the receiver declares no such message, but {sorted(forms)}"
    form = forms[message.kind]
    tensors = {name: (tensor.dtype, tuple(tensor.shape)) for name, tensor in message.tensors.items()}
    assert tensors == dict(form.tensors), f"{about} holds {tensors}; the receiver's form says {dict(form.tensors)}"
    figures = {name: type(value) for name, value in message.figures.items()}
    assert figures == dict(form.figures), f"{about} holds {figures}; the receiver's form says {dict(form.figures)}"
    assert all(tensor.device.type == "cpu" for tensor in message.tensors.values()), f"{about} is not on the CPU"


def _insist_alike(first: Ledger, other: Ledger, about: str) -> None:
    rows, others = (sorted(ledger.rows, key=lambda row: row[:2]) for ledger in (first, other))
    for row, its in zip(rows, others, strict=True):
        assert row == its, f"{about} peer {row[0]} has other figures in round {row[1]}: {its[2]} for {row[2]}"
    for key, model_D in first.models.items():
        assert torch.equal(model_D, other.models[key]), f"{about} peer {key[0]} has another model in round {key[1]}"
