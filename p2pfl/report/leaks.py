"""What curious peers found, from the folder `attacks/` of a run, read with suspicion: one `Leak` a finding.

Of a run that kept no such folder the entries of its summary are all there is. A finding that cannot be read costs only
itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from statistics import median
from typing import Any

from p2pfl import plugins
from p2pfl.evidence import HEAD, MATCHED, MEMORYLESS, PLAIN, SERVER, STATEFUL
from p2pfl.report.ending import virtual
from p2pfl.report.folder import Run, mapping
from p2pfl.report.units import number, numbers, peer_label, peer_order, plain

FOLDER = "attacks"
MOST_READ, MOST_BYTES = 5000, 1_000_000
"""How many findings are read, and how large the JSON of one may be."""
SKETCHED = (MEMORYLESS, SERVER, STATEFUL, MATCHED, HEAD)
"""How mail is read that was sketched: never one of these without the others."""
READINGS = {
    PLAIN: "the mail as it came, which nothing sketched",
    MEMORYLESS: "each message by itself, as a client that keeps no estimate",
    SERVER: "the true parameters, and the update through the sketch's own transpose",
    STATEFUL: "against an estimate of the parameters that is kept across rounds",
    MATCHED: "in the sketched space, with the key",
    HEAD: "only what travels unsketched",
    "linear": "solved for, from what was heard over many rounds",
}
"""What each reading goes by, in the order in which they are shown."""
READ = 1e-3
"""An image counts as read when its mean squared error is below, on a scale of 0 to 1."""
AREAS = ("property_auc", "membership_auc")
"""Areas under ROC: the best of several is above chance even where none tells anything, so none is picked."""
FIGURES = ("recovered", "psnr_db", "ssim", "mse", "label_accuracy", *AREAS)
"""What findings are judged by."""
LONGEST = 600


@dataclass(frozen=True)
class Judged:
    """One true image, and what became of it: whose it is, its label, and the label that was guessed."""

    figures: Mapping[str, float]
    peer: str = ""
    label: str = ""
    guessed: str = ""


@dataclass(frozen=True, eq=False)
class Leak:
    """One finding: what one reading of an attacker's mail told of a victim's round, by one method.

    `figures` are those of FIGURES that apply; none where nothing was judged, or nothing could be read. `path` is the
    finding's own file; None where the summary alone tells of it.
    """

    attackers: tuple[str, ...]
    victim: str
    round: int
    method: str
    options: str
    reading: str
    threat: str
    holds: str
    knowledge: str
    engine: str
    untrained: bool
    figures: Mapping[str, float]
    images: tuple[Judged, ...] = ()
    why: str = ""
    frames_at: tuple[int, ...] = ()
    path: Path | None = None

    @property
    def attacker(self) -> str:
        """`3`, or `3 + 5` where several share what they know."""
        return " + ".join(self.attackers)

    @property
    def own(self) -> tuple[Judged, ...]:
        """The images of the victim: where others' were found along with them, those do not count."""
        return tuple(image for image in self.images if image.peer in ("", self.victim)) or self.images

    @property
    def scene(self) -> tuple[tuple[int, ...], int, int, str, str]:
        """What the readings share that belong together; scenes sort by attacker, victim, round and method."""
        who = tuple(map(peer_order, self.attackers))
        return who, peer_order(self.victim), self.round, self.method, self.options

    @property
    def rank(self) -> tuple[int, str]:
        """The place of its reading among others."""
        return rank(self.reading)


def rank(reading: str) -> tuple[int, str]:
    """The place of a reading among others: those that are known first."""
    known = [*READINGS]
    return (known.index(reading) if reading in known else len(known)), reading


def found(run: Run) -> tuple[Leak, ...]:
    """All findings of a run, scene by scene, in the order of readings."""
    paths = islice(chain.from_iterable(map(_files, _folders(run.folder / FOLDER))), MOST_READ)
    leaks = [leak for path in paths if (leak := _leak(_told(path), run, path)) is not None]
    if not leaks:
        leaks = [leak for entry in entries(run) if (leak := _leak(entry, run, None)) is not None]
    return tuple(sorted(leaks, key=lambda leak: (leak.scene, leak.rank)))


def entries(run: Run) -> list[Mapping[str, Any]]:
    """`attacks` of the summary."""
    told = run.summary.get("attacks")
    return [entry for entry in told if isinstance(entry, Mapping)] if isinstance(told, list) else []


def scenes(leaks: Iterable[Leak]) -> list[list[Leak]]:
    """The readings of one attacker, victim, round and method, together."""
    together: dict[Any, list[Leak]] = {}
    for leak in leaks:
        together.setdefault(leak.scene, []).append(leak)
    return list(together.values())


def strongest(leaks: Iterable[Leak], figure: str) -> list[Leak]:
    """Of each attacker, victim and round the finding with most of a figure, by whatever method; of AREAS, all."""
    if figure in AREAS:
        return [leak for leak in leaks if figure in leak.figures]
    best: dict[Any, Leak] = {}
    for leak in leaks:
        key = leak.scene[:3]
        if figure in leak.figures and (key not in best or leak.figures[figure] > best[key].figures[figure]):
            best[key] = leak
    return list(best.values())


def mean(leaks: Sequence[Leak], figure: str) -> float | None:
    """A figure over findings: of all their images together where these are known; the median of errors."""
    if figure == "mse":
        errors = [error for leak in leaks for error in _each(leak)]
        return median(errors) if errors else None
    weighed = [(leak.figures[figure], len(leak.own) or 1) for leak in leaks if figure in leak.figures]
    return sum(value * weight for value, weight in weighed) / sum(weight for _, weight in weighed) if weighed else None


def label(run: Run, leak: Leak) -> str:
    """What must be said of a finding that counts for less than an attack on a live peer; else nothing."""
    told = ["upper bound: untrained model"] if leak.untrained else []
    if not travels(leak.engine):
        how = "simulated" if virtual(run) else "within one process"
        told.append(f"rehearsal: {how}, no bytes travelled")
    return "; ".join(told)


def travels(engine: str) -> bool:
    """Whether a peer's bytes reach another process on that engine: only there an attack counts."""
    return engine in plugins.names("engines") and bool(getattr(plugins.find("engines", engine), "wired", False))


def _each(leak: Leak) -> list[float]:
    errors = [image.figures["mse"] for image in leak.own if "mse" in image.figures]
    return errors or ([leak.figures["mse"]] if "mse" in leak.figures else [])


def _folders(folder: Path) -> list[Path]:
    try:
        return sorted(path for path in folder.iterdir() if path.name.startswith("peer-"))
    except OSError:
        return []


def _files(folder: Path) -> list[Path]:
    try:
        return sorted(path for path in folder.iterdir() if path.suffix == ".json" and path.stem.isdecimal())
    except OSError:
        return []


def _told(path: Path) -> Mapping[str, Any]:
    try:
        fit = path.is_file() and path.stat().st_size <= MOST_BYTES
    except OSError:
        return {}
    return mapping(path) if fit else {}


def _leak(told: Mapping[str, Any], run: Run, path: Path | None) -> Leak | None:
    """A finding; None where it does not say who attacked whom, and when."""
    known, victim, round_ = peers(told.get("attacker")), peer_label(told.get("victim")), told.get("round")
    if not known or victim is None or type(round_) is not int or not 0 <= round_ < 10**9:
        return None
    images = tuple(map(_judged, _list(told.get("images"))))
    at = tuple(int(figure) for each in _list(told.get("frames_at")) if (figure := number(each)) is not None)
    words = {key: text(told.get(key)) for key in ("method", "reading", "threat", "holds")}
    return Leak(
        **words, attackers=known, victim=victim, round=round_,
        options=_options(told.get("options")),
        knowledge=text(told.get("knowledge")) or "own",
        engine=text(told.get("engine") or run.summary.get("engine")),
        untrained=told.get("untrained") is True or told.get("upper_bound") is True,
        why=text(told.get("failed") or told.get("why")), figures=_kept(told), images=images, frames_at=at, path=path,
    )  # fmt: skip


def peers(told: object) -> tuple[str, ...]:
    """Who attacked, in order: one, or several that share what they know, as `3+5`; nobody where it is nonsense."""
    named = [peer_label(each) for each in (str(told).split("+") if isinstance(told, int | str) else [])]
    return () if None in named else tuple(sorted({str(each) for each in named}, key=peer_order))


def _judged(told: object) -> Judged:
    image = told if isinstance(told, Mapping) else {}
    words = {key: text(image.get(key)) for key in ("label", "guessed")}
    return Judged(_kept(image), peer_label(image.get("peer")) or "", **words)


def _kept(told: Mapping[str, Any]) -> dict[str, float]:
    """The figures that findings are judged by, those of them that can be."""
    area = f"{told.get('inferred')}_auc"
    named = {area if key == "auc" else key: figure for key, figure in numbers(told).items()}
    return {key: figure for key, figure in named.items() if key in FIGURES and (key != "mse" or figure >= 0)}


def _options(value: object) -> str:
    if not isinstance(value, Mapping):
        return ""
    told = {key: plain(option) if number(option) is not None else option for key, option in value.items()}
    return text(", ".join(f"{key} {option}" for key, option in told.items()))


def _list(value: object) -> list[Any]:
    return value[:MOST_READ] if isinstance(value, list) else []


def text(value: object) -> str:
    """On one line, of letters that can be shown, and not too long; nothing of what is no word and no number."""
    if not isinstance(value, str | int | float):
        return ""
    shown = "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in str(value)[:LONGEST])
    return shown if len(str(value)) <= LONGEST else f"{shown}…"
