"""Proposition 1 of the LEASGD paper against what LEASGD does, and D-PSGD on the same problem: figures, and a picture.

Source: Cheng et al., "LEASGD: an Efficient and Privacy-Preserving Decentralized Algorithm", section 3, eq. 6 and 7:
p leaders pull on one follower, and d_t is the mean over all of them of |w_t - w*|^2, averaged over independent runs.

    python benchmarks/proposition_1.py [OUT.png]
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import networkx as nx
import numpy
import torch
from bowl import Setting, gaps, leader_follower, starts
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

from p2pfl.algorithms.dpsgd import DPSGD

SETTING = Setting(p=3, eta=0.02, rho=5.0, sigma=0.0)
ROUNDS = 300


def curves(setting: Setting, rounds: int) -> dict[str, numpy.ndarray]:
    """What is drawn: measured gaps, and what was said of them."""
    begin_Nd, count = starts(setting), setting.p + 1
    ring, complete, slowing = nx.cycle_graph(count), nx.complete_graph(count), replace(setting, halved_after=100.0)
    found = {
        "LEASGD, measured": leader_follower(setting, rounds, begin_Nd),
        "D-PSGD, ring": gaps(DPSGD(), ring, setting, rounds, begin_Nd),
        "D-PSGD, complete": gaps(DPSGD(), complete, setting, rounds, begin_Nd),
        "D-PSGD, ring, steps like 1/t": gaps(DPSGD(), ring, slowing, rounds, begin_Nd),
    }
    lines = {name: squares.mean(1) for name, squares in found.items()}
    d0, c0 = lines["LEASGD, measured"][0], float(begin_Nd.square().sum(1).max())
    lines["bound (equation 7)"] = setting.printed(d0, c0, rounds)
    lines["the paper's $h^t d_0$"] = setting.h ** numpy.arange(rounds + 1) * d0
    return lines


LOOKS: Mapping[str, Mapping[str, Any]] = {
    "LEASGD, measured": {"color": "#0b5fa5", "linewidth": 2.6},
    "D-PSGD, ring": {"color": "#d1600a", "linewidth": 1.8, "dashes": (5, 2)},
    "D-PSGD, complete": {"color": "#2f8f46", "linewidth": 1.8, "dashes": (2, 2)},
    "D-PSGD, ring, steps like 1/t": {"color": "#8a5fb0", "linewidth": 1.4},
    "bound (equation 7)": {"color": "#222222", "linewidth": 1.4},
    "the paper's $h^t d_0$": {"color": "#b01c2e", "linewidth": 1.4, "dashes": (1, 2)},
}


def draw(axes: Axes, setting: Setting, lowest: float) -> None:
    """One panel, and its figures."""
    lines = curves(setting, ROUNDS)
    print(f"{setting}\n  1 - gamma {1 - setting.gamma:.4f}, h {setting.h:.4f}")
    for name, look in LOOKS.items():
        rate = (lines[name][-1] / lines[name][ROUNDS // 2]) ** (2 / ROUNDS)
        print(f"  {name:<30} at last {lines[name][-1]:.3g}, in the second half {rate:.4f} a round")
        axes.semilogy(lines[name], label=name, **look)
    title = f"noise of variance {setting.sigma**2:g}" if setting.sigma else "exact gradients"
    axes.set(title=title, xlabel="round $t$", ylim=(lowest, 2), xlim=(0, ROUNDS))
    axes.grid(color="#dddddd", linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)


def main() -> None:
    """Print the figures; draw them where a file is named."""
    torch.set_num_threads(1)
    picture = Figure(figsize=(9.6, 4.0), layout="constrained")
    panels = picture.subplots(1, 2)
    for axes, sigma, lowest in zip(panels, (0.0, 1.0), (1e-6, 2e-4), strict=True):
        draw(axes, replace(SETTING, sigma=sigma), lowest)
    panels[0].set_ylabel("$d_t$, mean squared distance from the optimum")
    panels[1].legend(frameon=False, fontsize=8, loc="upper right")
    if len(sys.argv) > 1:
        picture.savefig(sys.argv[1], dpi=100)
        with Image.open(sys.argv[1]) as drawn:  # 48 colours are enough, in a third of the bytes
            drawn.convert("RGB").quantize(48).save(sys.argv[1], optimize=True)


if __name__ == "__main__":
    main()
