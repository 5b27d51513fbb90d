"""Originals beside what curious peers made of them, all readings of one attack in a row, and how each came about.

Which are drawn is left to chance, of the scenario's seed, and never to how well they came out.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from p2pfl.evidence import MEMORYLESS
from p2pfl.report.folder import Run
from p2pfl.report.leak_images import Pixels, Range, Shown, holds, images, places, shown, span
from p2pfl.report.leaks import SKETCHED, Judged, Leak, label, rank, scenes
from p2pfl.report.units import count, plain
from p2pfl.seeds import Seeds

MOST_FINDINGS, MOST_IMAGES, MOST_FRAMES = 24, 8, 8
"""How many findings are drawn in full, how many images of each, and how many frames."""
MOST_BYTES = 1_500_000
"""How much all images of a page may weigh, as base64."""
FRAME_PX = 56
INPUTS, FRAMES, TRUTH, MATCHES = "inputs_BCHW", "frames_FCHW", "originals_BCHW", "inputs_B"
"""The tensors of a finding, and of its truth: the true images, and which of the inputs each was matched with."""


@dataclass(frozen=True)
class Tile:
    """One picture and what stands below it: a head, and lines. Without a picture the lines say why."""

    head: str
    lines: tuple[str, ...]
    image: Shown | None = None


@dataclass(frozen=True)
class Strip:
    """How the first image of a finding came about: frames, each with its iteration."""

    reading: str
    frames: tuple[tuple[Shown, str], ...]


@dataclass(frozen=True)
class Scene:
    """One attack on one victim in one round, by one method: a row of tiles an image, and a strip a reading."""

    title: str
    method: str
    tag: str
    place: str
    rows: tuple[tuple[Tile, ...], ...]
    strips: tuple[Strip, ...]
    rest: str = ""

    @property
    def weight(self) -> int:
        """How many bytes its pictures weigh on the page."""
        tiles = sum(len(tile.image.uri) for row in self.rows for tile in row if tile.image is not None)
        return tiles + sum(len(frame.uri) for strip in self.strips for frame, _ in strip.frames)


@dataclass(frozen=True)
class Gallery:
    """What is drawn, and how it was chosen."""

    said: str
    scenes: tuple[Scene, ...]


@dataclass(frozen=True, eq=False)
class Held:
    """A finding with its images, and the true ones. `rows` says where both are, by the true image's bytes.

    Of a true image that nothing was matched with the second is None.
    """

    leak: Leak
    inputs_BCHW: Pixels | None
    truth_KCHW: Pixels | None
    frames_FCHW: Pixels | None
    rows: Mapping[tuple[bytes, int], tuple[int, int | None]]


def gallery(run: Run, leaks: Sequence[Leak]) -> Gallery | None:
    """Some of the attacks that gave images; None where none did."""
    told = [scene for scene in scenes(leaks) if any(map(_has_images, scene))]
    seed = run.summary.get("seed")
    chance = Seeds.of(seed if type(seed) is int else 0).child("report", "gallery")
    drawn: dict[int, Scene] = {}
    findings, weight = 0, 0
    for at in map(int, chance.numpy("scenes").permutation(len(told))):
        if drawn and findings + len(told[at]) > MOST_FINDINGS:
            break
        scene = _scene(run, [_held(leak) for leak in told[at]], chance.numpy("images", at))
        if not drawn or weight + scene.weight <= MOST_BYTES:
            drawn[at] = scene
            findings, weight = findings + len(told[at]), weight + scene.weight
    every = sum(map(len, told))
    if not drawn:
        return None
    chosen = f"Drawn at random by the seed, never the best: {findings:,} of {count(every, 'finding')} with images."
    whole = f"All {count(every, 'finding')} with images." if every > 1 else "The one finding with images."
    return Gallery(whole if findings == every else chosen, tuple(drawn[at] for at in sorted(drawn)))


def _has_images(leak: Leak) -> bool:
    return leak.path is not None and holds(leak.path.with_suffix(".safetensors"), INPUTS)


def _held(leak: Leak) -> Held:
    if leak.path is None:
        return Held(leak, None, None, None, {})
    found, truth = leak.path.with_suffix(".safetensors"), leak.path.with_suffix(".truth.safetensors")
    inputs_BCHW, truth_KCHW = images(found, INPUTS), images(truth, TRUTH)
    if inputs_BCHW is None or truth_KCHW is None or truth_KCHW.shape[1:] != inputs_BCHW.shape[1:]:
        truth_KCHW = None
    made, true = (0 if each is None else len(each) for each in (inputs_BCHW, truth_KCHW))
    matched = places(truth, MATCHES) or range(true)
    seen: Counter[bytes] = Counter()
    rows = {}
    for row in range(made if truth_KCHW is None else true):
        name = b"" if truth_KCHW is None else truth_KCHW[row].tobytes()
        at = matched[row] if row < len(matched) else -1
        rows[name, seen[name]] = (row, row if truth_KCHW is None else at if 0 <= at < made else None)
        seen[name] += 1
    return Held(leak, inputs_BCHW, truth_KCHW, images(found, FRAMES), rows)


def _scene(run: Run, held: Sequence[Held], chance: np.random.Generator) -> Scene:
    first = held[0].leak
    names = list(dict.fromkeys(name for each in held for name in each.rows))
    chosen = sorted(chance.permutation(len(names))[:MOST_IMAGES])
    true_KCHW = next((each.truth_KCHW for each in held if each.truth_KCHW is not None), None)
    strips = [strip for each in held if (strip := _strip(each, _range(true_KCHW, each))) is not None]
    few = len(chosen) < len(names)
    return Scene(
        title=_title(first),
        method=f"{first.method} ({first.options})" if first.options else first.method,
        tag=label(run, first),
        place=_place(first),
        rows=tuple(_row(held, names[at], true_KCHW) for at in chosen),
        strips=tuple(strips),
        rest=f"{len(chosen)} of {len(names)} images of the batch, drawn at random." if few else "",
    )


def _title(leak: Leak) -> str:
    who = _named(leak.attackers)
    spy = "spy" if len(leak.attackers) > 1 else "spies"
    return f"{who[0].upper()}{who[1:]} {spy} on {_named((leak.victim,))}, round {leak.round:,}"


def _named(peers: Sequence[str]) -> str:
    if len(peers) > 1:
        return f"peers {', '.join(peers[:-1])} and {peers[-1]}"
    return "the hub" if peers[0] == "hub" else f"peer {peers[0]}"


def _place(leak: Leak) -> str:
    """What the attacker holds, and from which place, as a sentence."""
    place = f", as {leak.threat}" if leak.threat else ""
    return f"What it holds{place}: {leak.holds.rstrip('.') or 'nobody said'}. Knowledge: {leak.knowledge}."


def _range(true_KCHW: Pixels | None, held: Held) -> Range:
    return span(held.inputs_BCHW if true_KCHW is None else true_KCHW)


def _row(held: Sequence[Held], name: tuple[bytes, int], true_KCHW: Pixels | None) -> tuple[Tile, ...]:
    """The true image and each reading of it; where one reading has no memory, places for all the others too."""
    known = next((each for each in held if each.truth_KCHW is not None and name in each.rows), None)
    original = Tile("original", ("not kept",)) if known is None else _original(known, known.rows[name][0], true_KCHW)
    tiles = [(each.leak.rank, _tile(each, each.rows.get(name), _range(true_KCHW, each))) for each in held]
    readings = {each.leak.reading for each in held}
    missing = [one for one in SKETCHED if one not in readings] if MEMORYLESS in readings else []
    tiles += [(rank(one), Tile(one, ("no finding",))) for one in missing]
    return original, *(tile for _, tile in sorted(tiles, key=lambda each: each[0]))


def _original(held: Held, row: int, true_KCHW: Pixels | None) -> Tile:
    if held.truth_KCHW is None:
        return Tile("original", ("not kept",))
    judged = _judged(held, row)
    lines = [f"label {judged.label}"] if judged.label else []
    lines += [f"of {_named((judged.peer,))}"] if judged.peer not in ("", held.leak.victim) else []
    return Tile("original", tuple(lines), shown(held.truth_KCHW[row], _range(true_KCHW, held)))


def _judged(held: Held, row: int) -> Judged:
    return held.leak.images[row] if row < len(held.leak.images) else Judged({})


def _tile(held: Held, places: tuple[int, int | None] | None, drawn: Range) -> Tile:
    head = held.leak.reading or "found"
    row, at = places or (0, None)
    if at is None or held.inputs_BCHW is None:
        return Tile(head, (held.leak.why or "no image",))
    return Tile(head, _under(_judged(held, row)), shown(held.inputs_BCHW[at], drawn))


def _under(judged: Judged) -> tuple[str, ...]:
    """The figures under a reconstruction."""
    told = judged.figures
    lines = [f"{told['psnr_db']:.1f} dB"] if "psnr_db" in told else []
    lines += [f"SSIM {told['ssim']:.3f}"] if "ssim" in told else []
    lines += [f"MSE {plain(float(format(told['mse'], '.2g')))}"] if "mse" in told else []
    lines += [f"label {judged.label}, guessed {judged.guessed}"] if judged.guessed else []
    return tuple(lines) or ("not judged",)


def _strip(held: Held, drawn: Range) -> Strip | None:
    """At most so many frames, evenly chosen, the first and the last among them."""
    if held.frames_FCHW is None:
        return None
    every, at = np.unique(np.linspace(0, len(held.frames_FCHW) - 1, MOST_FRAMES).astype(int)), held.leak.frames_at
    frames = ((shown(held.frames_FCHW[k], drawn, FRAME_PX), f"{at[k]:,}" if k < len(at) else "") for k in every)
    return Strip(held.leak.reading or "found", tuple(frames))
