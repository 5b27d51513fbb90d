"""What a run came to: one sentence, a few tiles, and a line for each peer. From the summary, else from the rows."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from p2pfl.report import privacy
from p2pfl.report.curves import sent_by_round
from p2pfl.report.ending import looked_at, planned, reason, rounds, virtual
from p2pfl.report.folder import Run, absences, crashed, last, last_round, lost, series, spent_out
from p2pfl.report.units import count, duration, flat, humane, number, numbers, plain, share, size

SUMMED = {"accuracy": "test accuracy", "validation_accuracy": "validation accuracy"}
"""The accuracies of summary.json; the second is there where the test set is not read."""
CHIPS = ("algorithm", "topology", "data", "partition", "model", "sketch", "aggregator", "defences", "engine")


@dataclass(frozen=True)
class Tile:
    """One key figure."""

    label: str
    figure: str
    beside: str = ""


@dataclass(frozen=True)
class Line:
    """One peer in the table of peers, ready to be printed."""

    peer: str
    rounds: str
    loss: str
    accuracy: str
    sent: str
    epsilon: str
    round_time: str
    absent: str
    faults: str
    state: str


def chips(run: Run) -> list[tuple[str, str]]:
    """The names of the plug-ins the scenario chose, found in its text."""
    found = (
        (key, re.search(rf"^{key}:\s*(?:- |\[)?\{{?\s*['\"]?([\w.-]+)", run.scenario, re.MULTILINE)) for key in CHIPS
    )
    return [(key, hit.group(1)) for key, hit in found if hit is not None]


def accuracies(run: Run) -> Mapping[str, float]:
    """`mean`, `min`, `max` (and `consensus_model`): the summary's, else those of the rows so far."""
    for summed in (numbers(run.summary.get(key)) for key in SUMMED):
        if "mean" in summed:
            return summed
    voices = ("hub",) if "hub" in run.peers else run.peers
    found = [last(run, peer, "test_accuracy", "validation_accuracy") for peer in voices]
    known = [figure for figure in found if figure is not None]
    return {"mean": sum(known) / len(known), "min": min(known), "max": max(known)} if known else {}


def sentence(run: Run) -> str:
    """The result in one sentence."""
    members = sum(peer != "hub" for peer in run.peers)
    peers = int(number(run.summary.get("peers")) or members)
    who = count(peers, "peer") + (" and a hub" if "hub" in run.peers else "")
    gone, wall_s = crashed(run), number(run.summary.get("wall_s"))
    if not rounds(run) and gone:
        some = "All" if len(gone) >= len(run.peers) else f"{len(gone):,} of"
        return f"{some} {who} crashed before any had finished a round."
    if not rounds(run):
        return "The run stopped before any peer had finished a round."
    text = f"{who} trained for {_rounds(run)}"
    text += f" in {duration(wall_s)}" if wall_s is not None else ""
    found, sent = accuracies(run), _sent(run)
    if "mean" in found:
        whose = "the hub's model came to" if "hub" in run.peers else "on average a peer's model came to"
        text += f"; {whose} {share(found['mean'])} accuracy{'' if run.finished else ' so far'}"
    text += f", for {size(sent)} sent by all together." if sent else "."
    if gone:
        return f"{text} {'All' if len(gone) >= len(run.peers) else f'{len(gone):,}'} of them crashed."
    return f"{text} It ended early: {reason(run)}." if reason(run) else text


def _rounds(run: Run) -> str:
    """`30 rounds`, or `13 of 30 rounds`."""
    done, all_ = rounds(run), planned(run)
    return count(done, "round") if done == all_ else f"{done:,} of {count(all_, 'round')}"


def figures(run: Run) -> list[tuple[str, str]]:
    """The figures of summary.json, flattened, in units for people; those of each reading stand among the attacks."""
    notes = {"spectral_gap": f", the contraction a round, over {_first(run)}"} if looked_at(run) else {}
    notes |= {"round_s.median": ", virtual", "round_s.p95": ", virtual"} if virtual(run) else {}
    told = [(path, value) for path, value in flat(run.summary) if not re.match(r"leak\.[^.]+\.", path)]
    return [(path, humane(path, value) + notes.get(path, "")) for path, value in told]


def tiles(run: Run) -> list[Tile]:
    """The key figures; those that nobody recorded are left out."""
    return [*_learned(run), *_spent(run), *_paid(run)]


def _learned(run: Run) -> Iterator[Tile]:
    found, summary = accuracies(run), run.summary
    if "mean" in found:
        spread = found.get("max", 0.0) - found.get("min", 0.0)
        beside = f"{share(found['min'])} to {share(found['max'])}" if spread > 0 and "min" in found else ""
        told = (what for key, what in SUMMED.items() if "mean" in numbers(run.summary.get(key)))
        where = next(told, "accuracy so far")
        yield Tile(where, share(found["mean"]), beside or ("the hub's model" if "hub" in run.peers else ""))
    if "consensus_model" in found and "hub" not in run.peers:
        yield Tile("consensus model", share(found["consensus_model"]), "the models' mean")
    if "mean" in (auc := numbers(summary.get("auc"))):
        yield Tile("area under ROC", f"{auc['mean']:.4f}", "0.5 is chance, 1 is perfect")
    target = number(summary.get("rounds_to_target"))
    reached = f"target reached in round {target:.0f}" if target is not None else ""
    learned = number(summary.get("rounds_to_loss"))
    down = f"loss reached in round {learned:.0f}" if learned is not None else ""
    cut = f"of {planned(run):,}" if planned(run) > rounds(run) else ""
    why = "" if reached and summary.get("ended_by") == "target" else reason(run)
    yield Tile("rounds", f"{rounds(run):,}", ", ".join(filter(None, (cut, why, reached, down))))
    distance = number(summary.get("consensus_distance"))
    if distance is not None:
        gap = number(summary.get("spectral_gap"))
        mixes = f"contraction {{}} a round, over {_first(run)}" if looked_at(run) else "spectral gap {}"
        yield Tile("consensus distance", plain(distance), mixes.format(plain(gap)) if gap is not None else "")


def _spent(run: Run) -> Iterator[Tile]:
    """Epsilon, and what it is worth."""
    told = privacy.told(run)
    largest, delta = numbers(told.get("epsilon")).get("max"), number(told.get("delta"))
    if largest is not None:
        terms = [f"δ {plain(delta)}"] if delta is not None else ["so far"]
        replayable = ["replayable, not for release"] if told.get("replayable") is True else []
        yield Tile("epsilon", plain(largest), ", ".join([*terms, *replayable]))


def _first(run: Run) -> str:
    return f"the first {count(looked_at(run), 'round')}"


def _paid(run: Run) -> Iterator[Tile]:
    summary = run.summary
    sent, each = _sent(run), numbers(summary.get("bytes")).get("sent_per_peer_round")
    if sent is not None:
        yield Tile("sent", size(sent), f"{size(each)} a peer and round" if each is not None else "by all together")
    median_s = numbers(summary.get("round_s")).get("median")
    wall_s = number(summary.get("wall_s"))
    if wall_s is not None:
        each_round = (
            f"{duration(median_s)} a round{', in virtual time' if virtual(run) else ''}" if median_s is not None else ""
        )
        yield Tile("wall time", duration(wall_s), each_round)
    memory = numbers(summary.get("peer_memory_mb"))
    if "median" in memory:
        most = f"at most {size(memory['max'] * 1e6)}" if "max" in memory else ""
        yield Tile("memory a peer", size(memory["median"] * 1e6), most)


def _sent(run: Run) -> float | None:
    told = numbers(run.summary.get("bytes")).get("sent")
    _, total_R = sent_by_round(run)
    return told if told is not None else float(total_R[-1]) if total_R.size else None


def lines(run: Run) -> list[Line]:
    """Each peer's last word."""
    missed = numbers(run.summary.get("absent")) or {peer: len(rounds) for peer, rounds in absences(run).items()}
    faults = numbers(run.summary.get("faults"))
    states = dict.fromkeys(lost(run), "stopped") | dict.fromkeys(crashed(run), "crashed")
    return [_line(run, peer, missed.get(peer, 0), faults.get(peer, 0), states.get(peer, "")) for peer in run.peers]


def _line(run: Run, peer: str, missed: float, faults: float, state: str) -> Line:
    loss, sent = last(run, peer, "loss", "validation_loss"), last(run, peer, "sent_bytes")
    epsilon = last(run, peer, "epsilon")
    accuracy = last(run, peer, "test_accuracy", "validation_accuracy")
    _, round_s = series(run.rows.get(peer, ()), "round_s")
    return Line(
        peer=peer,
        rounds=str(last_round(run, peer)),
        loss="" if loss is None else plain(loss),
        accuracy="" if accuracy is None else share(accuracy),
        sent="" if sent is None else size(sent),
        epsilon="" if epsilon is None else plain(epsilon) + (", spent" if peer in spent_out(run) else ""),
        round_time=duration(float(np.median(round_s))) if round_s.size else "",
        absent=plain(missed) if missed else "",
        faults=plain(faults) if faults else "",
        state=state,
    )


def troubles(run: Run) -> str:
    """Who crashed, stopped, was missed or broke a rule, in a sentence or two."""
    table = lines(run)
    failed, stopped = (
        [f"{line.peer} (after round {line.rounds})" for line in table if line.state == state]
        for state in ("crashed", "stopped")
    )
    missed = [f"{line.peer} ({line.absent})" for line in table if line.absent]
    blamed = [f"{line.peer} ({line.faults})" for line in table if line.faults]
    told = (
        ("Crashed: ", failed),
        ("Stopped before the end: ", stopped),
        ("Absent from exchanges: ", missed),
        ("Faults: ", blamed),
    )
    said = " ".join(f"{start}{', '.join(who[:20])}{', …' if len(who) > 20 else ''}." for start, who in told if who)
    return said or "Nobody was absent, and nobody broke a rule."
