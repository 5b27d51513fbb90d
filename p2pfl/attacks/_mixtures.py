"""A peer's steps from posts in which they are mixed over time, where all add much the same from round to round.

Source: El Mrini, Cyffers & Bellet 2024, "Privacy Attacks in Decentralized Learning", section 4. With a row a peer,
posts mix by x_{r+1} = W x_r + d_r. If all d_r are one, what was heard is linear in its rows (and in x_1, unless all
began at one point), and the paper solves for them. Ours takes, of all d_1 to d_R that fit the posts, those that change
least from round to round (generalised least squares, Aitken 1935): the same where nothing changes, and exact where the
posts leave no choice.
Shapes: N peers, R rounds, K posts that were heard, U unknown rows of a d that stays (and of x_1), C changes of d,
D parameters.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from p2pfl.curiosity import Case
from p2pfl.messages import PeerId

FINEST, ALONE = 1e-6, 1e-3
"""Singular values below this part of the largest are rounding; a row is determined if others mix in by no more."""
ROUNDING, LEAST = 1e-9, 1e-10
"""The variance of the rounding of mail, of that of a change; singular values below are those of float64."""
CHUNK = 1 << 16
"""So many of the D parameters are solved for at once."""


@dataclass(frozen=True, eq=False)
class Posts:
    """What was heard, of whom and in which round, and a point to count from.

    Where all began there, `lead` is the part of an update that the first post holds already: 0 of single steps. It is
    None where peers began elsewhere.
    """

    by_peer_and_round: Mapping[tuple[PeerId, int], Tensor]
    origin_D: Tensor
    lead: float | None


@dataclass(frozen=True, eq=False)
class Row:
    """A victim's row of d, where its steps began, what it was pulled by meanwhile, and how well all of it fits."""

    moved_D: Tensor
    at_D: Tensor
    pulled_D: Tensor
    determined: bool
    residual: float


def heard(case: Case) -> Posts:
    """All posts, and where all began: at their first post if that is one, else where a clue says that steps began."""
    found = {(j, r): x_D.to(case.device) for j, rounds in case.heard.items() for r, x_D in rounds.items()}
    first = {j: x_D for (j, r), x_D in found.items() if r == 1}
    any_D = next(iter((first or found).values()))
    if len(first) > 1 and all(torch.equal(x_D, any_D) for x_D in first.values()):
        return Posts(found, any_D, 0.0)
    for j in sorted(set(first) - set(case.attackers)):
        clue = case.clue_of(j, 1)
        part = clue.sights[0].parts[0] if clue and clue.sights else None
        if part is not None and part.at.shape == any_D.shape and not torch.equal(part.at.to(any_D), first[j]):
            return Posts(found, part.at.to(any_D), len(part.lrs) / (len(part.lrs) + 1))
    return Posts(found, any_D, None)


def effects(case: Case, rounds: int) -> Tensor:
    """What each peer's moves in each round, and where it began, count for in all posts: posts x N x (rounds + 1) x N.

    Of the post of i in round s, [s - 1, i, r, j] is what j added in round r, and [s - 1, i, 0, j] where j began.
    """
    peers = everybody(case)
    now = torch.zeros(len(peers), rounds + 1, len(peers), dtype=torch.float64)
    found = []
    for r in range(rounds + 1):
        now = torch.einsum("ij,jrk->irk", mixing(case, peers, r), now)
        now[:, r].fill_diagonal_(1)
        found.append(now)
    return torch.stack(found)


def everybody(case: Case) -> list[PeerId]:
    """All peers of the graph."""
    return sorted({i for link in case.links for i in link})


def mixing(case: Case, peers: list[PeerId], r: int) -> Tensor:
    """W of round r, N x N."""
    w_NN = torch.zeros(len(peers), len(peers), dtype=torch.float64)
    for i, row in case.weights(r).items() if r else ():
        for j, weight in row.items():
            w_NN[peers.index(i), peers.index(j)] = weight
    return w_NN + torch.diag(1 - w_NN.sum(1))


def solved(case: Case, posts: Posts) -> Row:
    """The victim's row: of all that fit the posts, where rows change least from round to round."""
    places = {i: k for k, i in enumerate(everybody(case))}
    victim, told = places[case.victim], posts.by_peer_and_round
    all_ = effects(case, max(case.round, *(r - 1 for _, r in told)))
    heard = torch.stack([all_[r - 1, places[j]] for j, r in told])
    slot = 0 if posts.lead and case.round == 1 else case.round  # what the first post holds is judged as round 1
    moved = torch.zeros_like(heard[0])
    moved[slot, victim] = 1
    begun, ended = all_[slot - 1, victim] if slot else 0 * moved, all_[slot, victim]
    asked = torch.stack([moved, begun, ended - begun - moved])
    (static_KU, change_KC), (asked_U, asked_C) = split(heard, posts.lead), split(asked, posts.lead)
    loose_KK, eye_KK = change_KC @ change_KC.T, torch.eye(len(told), dtype=torch.float64)
    scale = float(loose_KK.diagonal().max().clamp(min=1))
    lower_KK = torch.linalg.cholesky(loose_KK / scale + ROUNDING * eye_KK)
    best_UK = torch.linalg.pinv(solve(lower_KK, static_KU), rtol=LEAST) @ solve(lower_KK, eye_KK)
    left_KK = torch.cholesky_solve(eye_KK - static_KU @ best_UK, lower_KK)
    combined_3K = asked_U @ best_UK + asked_C @ change_KC.T / scale @ left_KK
    inverse_UK = torch.linalg.pinv(static_KU, rtol=FINEST)
    found, residual = fitted(told, posts.origin_D, static_KU @ inverse_UK, combined_3K)
    mixed_in = float((asked_U[0] @ inverse_UK @ static_KU - asked_U[0]).norm() / asked_U[0].norm())
    at_D = told.get((case.victim, slot), posts.origin_D + found[1])
    return Row(found[0], at_D, found[2], mixed_in <= ALONE, residual)


def split(effects: Tensor, lead: float | None) -> tuple[Tensor, Tensor]:
    """What a d that stays counts for (and x_1, without a lead), and what each change of it from round to round does."""
    moves = torch.cat([lead * effects[:, :1], effects[:, 1:]], 1) if lead else effects[:, 1:]
    since = moves.flip(1).cumsum(1).flip(1)
    static = since[:, 0] if lead is not None else torch.cat([since[:, 0], effects[:, 0]], 1)
    return static, since[:, 1:].flatten(1)


def solve(lower_KK: Tensor, right: Tensor) -> Tensor:
    """lower^-1 right."""
    solution: Tensor = torch.linalg.solve_triangular(lower_KK, right, upper=False)
    return solution


def fitted(
    told: Mapping[tuple[PeerId, int], Tensor], origin_D: Tensor, project_KK: Tensor, combined: Tensor
) -> tuple[list[Tensor], float]:
    """What combinations of posts come to, D numbers each; and how much of the posts no d that stays explains."""
    project_KK, combined = project_KK.to(origin_D.device), combined.to(origin_D.device)
    pieces, left, whole = [], 0.0, 0.0
    for first in range(0, len(origin_D), CHUNK):
        part = slice(first, first + CHUNK)
        y_KC = torch.stack([x_D[part].double() - origin_D[part].double() for x_D in told.values()])
        pieces.append((combined @ y_KC).to(origin_D))
        left += float((y_KC - project_KK @ y_KC).square().sum())
        whole += float(y_KC.square().sum())
    return list(torch.cat(pieces, 1)), (left / whole) ** 0.5 if whole else 0.0
