"""What the findings of curious peers are worth, after the run: beside the examples that victims say they held.

Truth and attack never meet before: attacks work on what reached their peer, victims log which examples a batch held,
and here both lie on the disk. A finding is judged by what it has: pictures, labels or their counts, how sure it is of
a property, or parameters by whose losses membership shows.
Shapes: B recovered images, K true ones of C x H x W, N findings or examples.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy
import torch
from torch import Tensor

from p2pfl.metrics import images, membership, roc
from p2pfl.runtime import findings
from p2pfl.runtime.findings import Found, Told
from p2pfl.runtime.leak import INFERRED, JUDGED, Image, leak, own, recovered, short
from p2pfl.runtime.truth import Court, Held, Truth
from p2pfl.runtime.world import World

FIGURES = ("psnr_db", "ssim", "mse", "recovered", "label_accuracy", "auc")
PROPERTY, MEMBERSHIP = INFERRED
ADDED = (*FIGURES, "images", "examples", JUDGED)
"""What judging alone says of a finding: where an attack says it itself, it does not count."""
MOST_PICTURES = 4096
"""Of one finding, that are looked at."""
Tensors = Mapping[str, Tensor]


def summed(folder: Path, world: World, held: Held) -> dict[str, Any]:
    """`attacks` and `leak` of summary.json; {} of a run in which nobody spied. It judges as `score` does."""
    judged = _judge(folder, Court(world, held))
    leaked = leak([told for _, told in judged])
    return ({"attacks": [_entry(*each) for each in judged]} if judged else {}) | ({"leak": leaked} if leaked else {})


def score(folder: Path, world: World, held: Held) -> list[dict[str, Any]]:
    """Judge every finding of a run, complete its JSON and write its truth beside it. An entry each for the summary.

    What no victim logged cannot be judged: its entry has no figures. Raises OSError where the disk does.
    """
    return [_entry(*each) for each in _judge(folder, Court(world, held))]


def _judge(folder: Path, court: Court) -> list[tuple[Found, Told]]:
    found = findings.read(folder)
    added = [_added(one, court) for one in found]
    for at, auc in _property_areas(found, court):
        added[at] |= {"auc": auc, JUDGED: PROPERTY}
    judged = []
    for one, figures in zip(found, added, strict=True):
        told = {key: value for key, value in one.told.items() if key not in ADDED}
        told |= {"attacker": one.attacker, "victim": one.victim, "reading": one.reading} | figures
        if told != one.told:
            findings.complete(one.path, told)
        judged.append((one, told))
    return judged


def _entry(found: Found, told: Told) -> dict[str, Any]:
    """What the summary says of a finding. Keys that do not apply are absent."""
    entry = {"attacker": found.attacker, "victim": found.victim, "round": found.round, "method": found.method}
    shown = ("reading", "knowledge", "threat", *FIGURES, JUDGED, "seconds")
    entry |= {key: told[key] for key in shown if isinstance(told.get(key), int | float | str)}
    entry |= {"upper_bound": True} if told.get("untrained") is True else {}
    return entry | {key: told[key] for key in ("engine", "failed") if isinstance(told.get(key), str)}


def _added(found: Found, court: Court) -> Told:
    """What there is to say of one finding by itself; {} where what is true is not known.

    Who set out to recover images or labels and came back with nothing recovered none: that counts, too.
    """
    made, truth, kind = findings.tensors(found), _truth(found, court), court.kind(found.method)
    if truth is not None and (kind == "images" or _drawn(made, truth)):
        return _pictures(found, made, truth, court.span)
    if truth is not None and truth.whole and (kind == "labels" or _labels(made)):
        findings.keep(found.path.with_suffix(".truth.safetensors"), {"labels_B": truth.labels_K})
        return {"label_accuracy": _overlap(_labels(made), truth.labels_K), "examples": len(truth.labels_K)}
    return _membership(found, made, court) if "suspect_D" in made else {}


def _truth(found: Found, court: Court) -> Truth | None:
    """What is true of the batches that a finding is about: of a reading that shows none, the victim's in that round."""
    if found.reading is None:
        return None
    victim = findings.peer_id(found.victim)
    return court.truth(found.batches or ([] if victim is None else court.taken(victim, found.round)))


def _drawn(made: Tensors, truth: Truth) -> bool:
    """Whether it holds images that may be these."""
    inputs = made.get("inputs_BCHW")
    return inputs is not None and inputs.numel() > 0 and inputs.shape[1:] == truth.inputs_KCHW.shape[1:]


def _pictures(found: Found, made: Tensors, truth: Truth, span: images.Span) -> Told:
    """Match what was recovered with what is true, over all batches; then the figures of the victim's own images.

    No more guesses than examples: but where a batch of somebody else is unknown, its images are among the recovered.
    """
    true_KCHW = images.to_unit(truth.inputs_KCHW, span)
    most = len(true_KCHW) if truth.whole else MOST_PICTURES
    inputs = made["inputs_BCHW"] if _drawn(made, truth) else truth.inputs_KCHW[:0]
    made_BCHW = images.to_unit(inputs[:most], span)
    matched = images.assignment(images.errors(made_BCHW, true_KCHW)) if len(inputs) else {}
    order = sorted(range(len(true_KCHW)), key=lambda k: matched.get(k, most + k))
    labels_B = _whole_numbers(made, "labels_B")
    shown: list[Image] = []
    for k in order:
        image: Image = {"peer": findings.label(truth.peers_K[k]), "label": int(truth.labels_K[k])}
        if k in matched:
            image |= _compared(made_BCHW[matched[k]], true_KCHW[k])
            image |= {"guessed": labels_B[matched[k]]} if len(labels_B) == len(inputs) else {}
        shown.append(image)
    seen = {"originals_BCHW": truth.inputs_KCHW[order], "labels_B": truth.labels_K[order]}
    seen["inputs_B"] = torch.tensor([matched.get(k, -1) for k in order])
    findings.keep(found.path.with_suffix(".truth.safetensors"), seen)
    told = {"label_accuracy": _overlap(_labels(made), truth.labels_K)} if truth.whole and _labels(made) else {}
    return {"images": shown} | told | _means(own(shown, found.victim))


def _compared(made_CHW: Tensor, true_CHW: Tensor) -> Image:
    mse = float((made_CHW - true_CHW).square().mean())
    like = images.ssim(made_CHW, true_CHW)
    figures = {"mse": short(mse), "psnr_db": short(images.psnr_db(mse))}
    return figures if like is None else figures | {"ssim": short(like)}


def _means(shown: Sequence[Image]) -> Told:
    """Over images. Labels count whichever image they came with: one that shows nothing is matched at random."""
    means: Told = {"recovered": recovered(shown) / len(shown), "examples": len(shown)}
    for figure in ("mse", "psnr_db", "ssim"):
        if told := [image[figure] for image in shown if figure in image]:
            means[figure] = short(fmean(told))
    if guessed := Counter(image["guessed"] for image in shown if "guessed" in image):
        means["label_accuracy"] = _overlap(guessed, torch.tensor([image["label"] for image in shown]))
    return means


def _labels(made: Tensors) -> Counter[int]:
    """The labels that were told, or how often each."""
    counts = enumerate(_whole_numbers(made, "counts"))
    return Counter(_whole_numbers(made, "labels_B")) or Counter({label: count for label, count in counts if count > 0})


def _whole_numbers(made: Tensors, name: str) -> list[int]:
    tensor = made.get(name, torch.empty(0))
    return tensor.flatten().tolist() if tensor.dtype == torch.int64 else []


def _overlap(guessed: Counter[int], true_K: Tensor) -> float:
    """The share of true labels that were told, each as often as it was there."""
    return short((guessed & Counter(true_K.tolist())).total() / max(len(true_K), guessed.total()))


def _property_areas(found: Sequence[Found], court: Court) -> Iterator[tuple[int, float]]:
    """Of each finding that tells a property how well its kind does, over all rounds and victims of one attacker."""
    kinds: dict[tuple[Any, ...], list[tuple[int, float, bool]]] = {}
    for at, one in enumerate(found):
        asked = [one.told.get(key) for key in ("column", "value", "options")]
        sure, truth = one.told.get("score"), _truth(one, court)
        column_N = court.world.data.columns.get(str(asked[0])) if truth is not None else None
        if truth is not None and truth.whole and column_N is not None and isinstance(sure, int | float):
            has = any(value == asked[1] or str(value) == str(asked[1]) for value in column_N[truth.rows_K.numpy()])
            kind = (one.attacker, one.method, one.reading, json.dumps(asked, sort_keys=True))
            kinds.setdefault(kind, []).append((at, float(sure), has))
    for judged in kinds.values():
        ats, sure_N, has_N = zip(*judged, strict=True)
        if len({*has_N}) == 2:
            auc = roc.area(roc.curve(numpy.array(sure_N), numpy.array(has_N)))
            yield from ((at, short(auc)) for at in ats)


def _membership(found: Found, made: Tensors, court: Court) -> Told:
    """How well losses tell what the victim held from as many examples of the test part."""
    victim = findings.peer_id(found.victim)
    rows_N = None if victim is None else court.members(victim, found.round, found.batches)
    if rows_N is None or min(len(rows_N), len(court.world.data.test_y)) == 0:
        return {}
    data, others_N = court.world.data, court.others(len(rows_N))
    try:
        members_N = _suspicion(made, court, data.train_x[rows_N], data.train_y[rows_N])
        scores_N = _suspicion(made, court, data.test_x[others_N], data.test_y[others_N])
    except ValueError:  # parameters of another model
        return {}
    return {"auc": short(membership.auc(members_N, scores_N)), JUDGED: MEMBERSHIP, "examples": len(rows_N)}


def _suspicion(made: Tensors, court: Court, inputs_NCHW: Tensor, labels_N: Tensor) -> membership.Floats:
    """How much each example looks like one that was learned from."""
    suspect_N = court.losses(made["suspect_D"], inputs_NCHW, labels_N).numpy()
    reference_D = made.get("reference_D")
    return membership.scores(
        suspect_N, None if reference_D is None else court.losses(reference_D, inputs_NCHW, labels_N).numpy()
    )
