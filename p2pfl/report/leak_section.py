"""What curious peers found, as the part of a run's page that tells of it: words, pictures, images and tables."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from p2pfl.report import leak_curves, leak_graph, leak_map, leak_tables
from p2pfl.report.folder import Run
from p2pfl.report.leak_gallery import Gallery, gallery
from p2pfl.report.leak_tables import Table
from p2pfl.report.leaks import READINGS, found, label
from p2pfl.report.svg import Picture


@dataclass(frozen=True)
class Section:
    """All that the page says of attacks. `readings` are those that were tried, and what each goes by."""

    sentence: str
    tags: tuple[str, ...]
    summed: Table | None
    readings: tuple[tuple[str, str], ...]
    pictures: tuple[Picture, ...]
    gallery: Gallery | None
    table: Table


def section(run: Run) -> Section | None:
    """The part of the page; None of a run in which nobody spied."""
    leaks, table = found(run), leak_tables.attacks(run)
    if not leaks and not table.rows:
        return None
    tried = {leak.reading for leak in leaks}
    told = leak_map.told(leaks)
    squares = [leak_map.picture(run, *each) for each in told]
    graphs = [leak_graph.picture(run, *each) for each in told[:1]]
    return Section(
        sentence=leak_tables.sentence(run),
        tags=_tags([label(run, leak) for leak in leaks]),
        summed=leak_tables.readings(run),
        readings=tuple((name, what) for name, what in READINGS.items() if name in tried),
        pictures=(*squares[:1], *graphs, *squares[1:], *leak_curves.pictures(leaks)),
        gallery=gallery(run, leaks),
        table=table,
    )


def _tags(labels: Sequence[str]) -> tuple[str, ...]:
    """What must be said of findings, and of how many where it is not true of all."""
    found = Counter(filter(None, labels))
    every = len(labels)
    return tuple(
        said if times == every else f"{times:,} of {every:,} findings: {said}" for said, times in found.items()
    )
