"""Proposition 1 of the LEASGD paper, on the real algorithm: on a strongly convex quadratic d_t obeys its bound.

By the convexity of the square, leaders w_i - eta g_i + alpha (w_f - w_i) and their follower w_f - eta g_f + alpha sum_i
(w_i - w_f) come together no further from w* than (1 - gamma) d_t, while a step eta / (1 - beta) <= 2 / (mu + L) brings
each closer; so d_{t+1} <= (1 - gamma) d_t + eta^2 sigma^2, sigma^2 being E |noise|^2 of the whole gradient. Summed up,
that is the `shorter` bound. The printed one is it with (p / (p + 1))^t d_0 + (1 - (p / (p + 1))^t) c_0 for d_0, so it
holds too, and falls like (1 - gamma)^t. What the paper reads from it, E[d_{t+1}] <= h E[d_t], does not follow, and is
false. Nor does h = p (1 - gamma) / (p + 1) fall as p grows: it rises. All this is for peers of one and the same loss.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import networkx as nx
import numpy
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as some
from torch import Tensor

from p2pfl.algorithms.dpsgd import DPSGD
from p2pfl.algorithms.leasgd import LEASGD

sys.path.append(str(Path(__file__).resolve().parent.parent / "benchmarks"))
from bowl import Setting, gaps, leader_follower, starts

ERRORS = 4.0
"""How many standard errors of the mean over runs are allowed for."""
SETTINGS = [
    Setting(1, 0.1, 2.0, 1.0),
    Setting(2, 0.12, 1.0, 1.0, coordinates=3),
    Setting(3, 2 / 17, 1.0, 0.5),
    Setting(4, 0.05, 3.0, 2.0),
    Setting(8, 0.02, 5.0, 1.0),
    Setting(5, 0.5, 0.1, 1.0, largest=1.5, coordinates=4),
]


def apart(leaders: float, follower: float, setting: Setting) -> Tensor:
    return torch.tensor([follower] + [leaders] * setting.p, dtype=torch.float64)[:, None].repeat(1, setting.coordinates)


BEGINNINGS = {
    "anywhere": partial(starts, seed=3),
    "all at one place": partial(apart, 1.0, 1.0),
    "the follower far away": partial(apart, 0.0, 3.0),
    "the leaders far away": partial(apart, 3.0, 0.0),
}


def c0(begin_Nd: Tensor) -> float:
    return float(begin_Nd.square().sum(1).max())


def insist_below(squares_TR: numpy.ndarray, bound_T: numpy.ndarray) -> None:
    error_T = squares_TR.std(1) / squares_TR.shape[1] ** 0.5
    assert (squares_TR.mean(1) - ERRORS * error_T <= bound_T * (1 + 1e-9)).all()


@pytest.mark.parametrize("beginning", BEGINNINGS)
@pytest.mark.parametrize("setting", SETTINGS, ids=lambda s: f"p={s.p},eta={s.eta:.3g},rho={s.rho:g}")
def test_d_obeys_the_bound_of_proposition_1(setting: Setting, beginning: str) -> None:
    assert setting.fits
    begin_Nd = BEGINNINGS[beginning](setting)
    squares_TR = leader_follower(setting, 60, begin_Nd, runs=200)
    d0 = squares_TR[0].mean()
    insist_below(squares_TR, setting.shorter(d0, 60))
    insist_below(squares_TR, setting.printed(d0, c0(begin_Nd), 60))
    exact_T = leader_follower(replace(setting, sigma=0.0), 60, begin_Nd, runs=1)[:, 0]
    assert (exact_T[1:] <= (1 - setting.gamma) * exact_T[:-1] * (1 + 1e-9)).all(), "in every single round"


@given(some.integers(1, 20), some.floats(0.01, 0.9), some.floats(0, 9), some.floats(0.1, 50), some.floats(1, 4))
def test_the_printed_bound_is_the_shorter_one_with_more_for_the_beginning(
    p: int, share: float, sigma: float, d0: float, spread: float
) -> None:
    setting = Setting(p, share * 2 / 11, 0.0, sigma)
    printed_T, shorter_T = setting.printed(d0, spread * d0, 50), setting.shorter(d0, 50)
    kept_T = (p / (p + 1)) ** numpy.arange(51)
    more_T = (1 - setting.gamma) ** numpy.arange(51) * (1 - kept_T) * (spread - 1) * d0
    numpy.testing.assert_allclose(printed_T, shorter_T + more_T, rtol=1e-9, atol=1e-12)


def test_without_noise_d_does_not_fall_like_h_but_by_the_slowest_direction() -> None:
    """All at one place, in the direction of the least curvature: d_{t+1} = (1 - eta mu)^2 d_t, whatever p and rho."""
    for p in (1, 3, 8):
        setting = Setting(p, 0.02, 5.0, 0.0)
        slow_Nd = torch.eye(1, setting.coordinates, dtype=torch.float64).repeat(p + 1, 1)
        d_T = leader_follower(setting, 40, slow_Nd, runs=1)[:, 0]
        numpy.testing.assert_allclose(d_T, (1 - setting.eta * setting.mu) ** (2 * numpy.arange(41)), rtol=1e-9)
        assert (d_T[1:] > setting.h * d_T[:-1]).all(), "so E[d_{t+1}] <= h E[d_t] is false"
        assert (d_T[1:] > setting.h ** numpy.arange(1, 41) * d_T[0]).all()
    hs = [Setting(p, 0.02, 5.0, 0.0).h for p in (1, 3, 8)]
    assert hs == sorted(hs), "and h does not become smaller as p grows"


def test_the_bound_is_reached_so_nothing_smaller_would_hold() -> None:
    """At eta = 2 / (mu + L) without a pull: each step takes a direction of curvature mu or L to exactly 1 - gamma."""
    steep = Setting(3, 2 / 11, 0.0, 0.0)
    for direction in (0, -1):
        begin_Nd = torch.zeros(4, 10, dtype=torch.float64)
        begin_Nd[:, direction] = 1.0
        numpy.testing.assert_allclose(leader_follower(steep, 9, begin_Nd, runs=1)[:, 0], steep.shorter(1.0, 9))
    round_bowl = Setting(3, 1.0, 0.0, 2.0, largest=1.0)
    squares_TR = leader_follower(round_bowl, 20, starts(round_bowl), runs=400)[1:]
    error = squares_TR.std() / 400**0.5
    assert squares_TR.mean(1) == pytest.approx(numpy.full(20, 4.0), abs=ERRORS * error), "sigma^2 of all coordinates"


def test_outside_its_conditions_the_bound_is_broken() -> None:
    for eta, rho in ((2.2 / 10, 0.0), (0.1, 20 / 3)):  # too long a step; p eta rho = 2
        setting = Setting(3, eta, rho, 0.0)
        assert not setting.fits
        begin_Nd = BEGINNINGS["the follower far away"](setting)
        d_T = leader_follower(setting, 60, begin_Nd, runs=1)[:, 0]
        assert (d_T > setting.shorter(d_T[0], 60) * (1 + 1e-6)).any()


@pytest.mark.parametrize(("peers", "k"), [(3, 1), (4, 2), (9, 2)])
def test_with_pools_by_loss_the_whole_system_obeys_it_too(peers: int, k: int) -> None:
    """Several followers, each pulled on by some of the leaders; who leads changes; p is the most that may pull."""
    p, graph = peers - (peers - 1) // 2, nx.complete_graph(peers)
    setting = Setting(p, 0.05, 2.0, 1.0)
    assert setting.fits
    begin_Nd = starts(replace(setting, p=peers - 1), seed=5)
    squares_TR = gaps(LEASGD(rho=2.0, k=k, pairing="pull"), graph, setting, 50, begin_Nd, runs=200)
    insist_below(squares_TR, setting.shorter(squares_TR[0].mean(), 50))


def test_at_a_constant_step_dpsgd_falls_at_the_same_rate() -> None:
    """The paper holds h^t against the O(1/t) of steps that shrink; at equal steps both are linear, and equally so."""
    setting = Setting(3, 0.02, 5.0, 0.0)
    begin_Nd = starts(setting)
    lines = [leader_follower(setting, 200, begin_Nd, runs=1)]
    lines += [
        gaps(DPSGD(), graph, setting, 200, begin_Nd, runs=1) for graph in (nx.cycle_graph(4), nx.complete_graph(4))
    ]
    for squares_TR in lines:
        rate = (squares_TR[200, 0] / squares_TR[150, 0]) ** (1 / 50)
        assert rate == pytest.approx((1 - setting.eta * setting.mu) ** 2, abs=5e-4)
    shrinking = replace(setting, halved_after=100.0)
    slow_T = gaps(DPSGD(), nx.cycle_graph(4), shrinking, 200, begin_Nd, runs=1)[:, 0]
    assert slow_T[200] > 5 * lines[0][200, 0]
