"""A run folder as one self-contained HTML page: no script, nothing fetched, all that was recorded escaped."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import jinja2
from markupsafe import Markup

from p2pfl.own_code import FOLDER
from p2pfl.report import curves, ending, headline, leak_section, pairs, peer_graph, privacy, roc, strips
from p2pfl.report.folder import Run, read
from p2pfl.report.svg import SHADES, style
from p2pfl.report.units import size

MOST_LINKS = 500
"""How many links the table of links lists."""


def write(folder: Path) -> Path:
    """Write `report.html` into a run folder, from what is there. Raises ScenarioError if that is no run folder."""
    page = folder / "report.html"
    text = render(read(folder))
    page.write_text(text, encoding="utf-8", errors="replace")  # a name may hold half a surrogate pair
    return page


def render(run: Run) -> str:
    """The page; the same text for the same record."""
    with style():
        pictures = [*curves.pictures(run), *roc.pictures(run), *peer_graph.pictures(run), *pairs.pictures(run)]
        pictures += strips.pictures(run)
        spent = privacy.picture(run)
        spied = leak_section.section(run)
    loader = jinja2.FileSystemLoader(Path(__file__).parent)
    environment = jinja2.Environment(loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True)
    environment.globals["drawn"] = lambda picture: Markup(picture.svg)
    return environment.get_template("page.html").render(
        run=run,
        sentence=headline.sentence(run),
        chips=headline.chips(run),
        tiles=headline.tiles(run),
        peers=headline.lines(run),
        troubles=headline.troubles(run),
        pictures=pictures,
        lone=sum(not picture.wide for picture in pictures) % 2 == 1,
        private=privacy.statement(run),
        spent=spent,
        notices=ending.notices(run),
        virtual=ending.virtual(run),
        roles=list(SHADES),
        figures=headline.figures(run),
        spied=spied,
        links=_links(run),
        environment=json.dumps(run.environment, indent=2, ensure_ascii=False) if run.environment else "",
        again=_again(run),
    )


def _again(run: Run) -> str:
    """The command that runs it once more; with plug-ins of one's own beside the scenario it has to allow them."""
    allowed = ["--allow-code"] if (run.folder / FOLDER).is_dir() else []
    return shlex.join(["p2pfl", "launch", str(run.folder / "scenario.yaml"), *allowed])


def _links(run: Run) -> list[tuple[str, str, str]]:
    """Both ends and the bytes of each link, those with most first."""
    known = [(sent, link) for link, sent in run.links.items() if sent is not None]
    known.sort(key=lambda item: -item[0])
    return [(a, b, size(sent)) for sent, (a, b) in known[:MOST_LINKS]]
