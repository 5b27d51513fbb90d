"""Who leads and who follows, and who of them pulls on whom: drawn by every peer alike, so that it costs no message.

Source: Cheng et al., "LEASGD: an Efficient and Privacy-Preserving Decentralized Algorithm", section 2.2; the proof of
its Proposition 1 has p leaders that pull on one follower.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from p2pfl.evidence import Notes
from p2pfl.messages import PeerId
from p2pfl.seeds import Seeds

Links = Sequence[tuple[PeerId, PeerId]]
Partners = Mapping[PeerId, tuple[PeerId, ...]]


@dataclass(frozen=True)
class Pairing:
    """A way to pair: who has whom as partners this round, how many at most, and how many pairs at most.

    `partners(links, leads, rng)` has no entry for who is left alone. `pulls(links)` is Proposition 1's p.
    """

    partners: Callable[[Links, Mapping[PeerId, bool], Seeds], Partners]
    pulls: Callable[[Links], int]
    pairs: Callable[[int], int]


def drawn(pairing: Pairing, rho: float, notes: Notes, r: int) -> dict[PeerId, dict[PeerId, float]]:
    """By which weight who pulled on whom: the pools were told to all, pairs are drawn from what all share."""
    page = next(iter(notes.page(r)))
    paired = pairing.partners(page.me.roster.links, page.state.leads, page.me.shared.child("pairs", r))
    pull = {i: rho * notes.lr(i, r * notes.steps(i) - 1) for i in paired}
    return {i: dict.fromkeys(partners, pull[i]) for i, partners in paired.items()}


def imagined(pairing: Pairing, links: Links, shuffle: float, k: int, shared: Seeds, r: int) -> Partners:
    """Who would be paired in round `r` if losses ranked peers at random: who leads hangs on what they will learn."""
    unknown = dict.fromkeys(sorted({peer for link in links for peer in link}), 0.0)
    leaders = pools(unknown, shuffle, shared.child("pools", r - (r - 1) % k))
    return pairing.partners(links, {i: i in leaders for i in unknown}, shared.child("pairs", r))


def refuse_overshoot(p: int, rho: float, lr: float, reach: float) -> None:
    """Raises ValueError unless eta rho < 1, and p eta rho < 1 for p pulls on one follower; `reach` stretches them."""
    one = lr * rho
    factors, reason = f"{rho:g} x {lr:g}", "rho times lr"
    remedy = f"lower rho below {1 / (lr * p * reach):.4g}"
    if one >= 1:
        raise ValueError(f"{reason} must be below 1, not {factors} = {one:g}: {remedy}")
    if p > 1:
        factors, reason = f"{factors} x {p}", f"{reason} times the {p} leaders that may pull on one follower"
        remedy = f"{remedy}, or set pairing to matching"
    if p * one >= 1:
        raise ValueError(f"{reason} must be below 1, not {factors} = {p * one:g}: {remedy}")
    if (stretched := p * one * reach) > 1:
        problem = f"{reason} times the sketch's relaxation must be at most 1, not {stretched:g}"
        raise ValueError(f"{problem}: {remedy}, or lower the relaxation, which is {reach:g}")


def followers_of(peers: int) -> int:
    """How many follow: the leader pool is always the larger."""
    return max(0, (peers - 1) // 2)


def pools(losses: Mapping[PeerId, float], shuffle: float, rng: Seeds) -> frozenset[PeerId]:
    """The leaders: those of lowest loss (ties at random), after each follower had its chance to trade places.

    Whose loss is not known, or not finite, comes last: nobody follows one that shows no reason why, and as a follower
    it is still pulled along, where out of the pools it would be left behind.
    """
    draw = rng.numpy("pools")
    peers = sorted(losses)
    order = [peers[k] for k in draw.permutation(len(peers))]
    order.sort(key=lambda i: losses[i] if math.isfinite(losses[i]) else math.inf)
    split = len(order) - followers_of(len(order))
    leaders, followers = order[:split], order[split:]
    for f in range(len(followers)):
        if draw.random() < shuffle:
            at = int(draw.integers(len(leaders)))
            leaders[at], followers[f] = followers[f], leaders[at]
    return frozenset(leaders)


def matching(links: Links, leads: Mapping[PeerId, bool], rng: Seeds) -> dict[PeerId, tuple[PeerId, ...]]:
    """A random maximal matching of leaders to followers along the links: each has one partner at most."""
    paired: dict[PeerId, tuple[PeerId, ...]] = {}
    for at in rng.numpy("matching").permutation(len(links)):
        i, j = links[at]
        if _opposed(leads, i, j) and i not in paired and j not in paired:
            paired |= {i: (j,), j: (i,)}
    return paired


def pull(links: Links, leads: Mapping[PeerId, bool], rng: Seeds) -> dict[PeerId, tuple[PeerId, ...]]:
    """Every leader draws one of the followers that it has a link to; several may draw the same one."""
    choices: dict[PeerId, list[PeerId]] = {}
    for i, j in links:
        if _opposed(leads, i, j):
            leader, follower = (i, j) if leads[i] else (j, i)
            choices.setdefault(leader, []).append(follower)
    draw = rng.numpy("pull")
    paired: dict[PeerId, tuple[PeerId, ...]] = {}
    for leader in sorted(choices):
        follower = sorted(choices[leader])[draw.integers(len(choices[leader]))]
        paired[leader] = (follower,)
        paired[follower] = (*paired.get(follower, ()), leader)
    return paired


def _opposed(leads: Mapping[PeerId, bool], i: PeerId, j: PeerId) -> bool:
    """Whether one leads and the other follows."""
    return i in leads and j in leads and leads[i] != leads[j]


def _most_pulls(links: Links) -> int:
    """How many leaders can pull on one follower: all there are, if it has so many links. 1 on no link at all."""
    degree = Counter(peer for link in links for peer in link)
    return min(len(degree) - followers_of(len(degree)), max(degree.values(), default=1)) or 1


def _leaders_with_followers(peers: int) -> int:
    return peers - followers_of(peers) if followers_of(peers) else 0


PAIRINGS: Mapping[str, Pairing] = {
    "matching": Pairing(matching, lambda links: 1, followers_of),
    "pull": Pairing(pull, _most_pulls, _leaders_with_followers),
}
"""The ways to pair, by name."""
