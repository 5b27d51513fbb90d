"""A sweep as it happens: a live table in a terminal and in a notebook, a line a case where there is neither."""

from __future__ import annotations

import time
from collections import Counter
from pathlib import Path
from types import TracebackType
from typing import Self

from rich.console import Console, Group, RenderableType
from rich.live import Live as Screen
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from p2pfl.report.live import REFRESH_S, SHARE, printable
from p2pfl.report.notebook import Cell, cell
from p2pfl.report.units import count, duration
from p2pfl.runtime.sweeps.crew import Job, News

LINE_S = 10.0
"""Where there is no terminal, a case that runs is told of so often."""
LAST, MOST_RUNNING = 8, 16
"""How many of those that are over, and of those that run, are shown."""
OVER = ("done", "failed", "stopped")
COLOURS = {"running": "", "done": "green", "failed": "red", "stopped": "yellow"}


class LiveSweep:
    """A context within which a sweep is shown: `begin` and `hear` are what an Audience wants."""

    def __init__(self, console: Console) -> None:
        self.console, self.name, self.runs, self.finished = console, "", 0, 0
        self.running: dict[Job, News] = {}
        self.over: list[News] = []
        shown = console.is_terminal and not console.is_dumb_terminal
        self._screen: Screen | Cell | None = Screen(console=console, auto_refresh=False) if shown else cell(console)
        self._began_s = self._due_s = time.monotonic()
        self._told_s: dict[Job, float] = {}
        self._started = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._screen is not None and self._started:
            self._refresh()
            self._screen.stop()

    def begin(self, name: str, folder: Path, runs: int, finished: int) -> None:
        """The sweep has so many runs, of which some were finished before."""
        self.name, self.runs, self.finished = printable(name), runs, finished
        if self._screen is not None:
            self._screen.start()
            self._started = True
            self._refresh()
            return
        before = f", {finished:,} finished before" if finished else ""
        self._print(f"{self.name}: {count(runs, 'run')}{before}, in {printable(str(folder))}")

    def hear(self, news: News) -> None:
        """Take in what became of a run, and show it if it is time to."""
        first = news.job not in self.running
        if news.state in OVER:
            self.over.append(news)
        if news.state == "running":
            self.running[news.job] = news
        else:
            self.running.pop(news.job, None)
        if self._screen is None:
            self._tell(news, first)
        elif first or news.state != "running" or time.monotonic() >= self._due_s:
            self._refresh()

    def line(self, news: News) -> str:
        """What became of a run, in one line."""
        case = news.job.case
        name = f"{'tuning' if news.job.trial else 'case'} {case.number} ({printable(case.label)})"
        said = [f"accuracy {news.accuracy:.3f}"] if news.accuracy is not None and news.state != "failed" else []
        if news.state == "running":
            return f"{name}: {', '.join([self._round(news), *said])}" if news.round else f"{name} starts"
        if news.state == "busy":
            return f"{name} is run by another process"
        what = printable(news.reason) if news.reason else ", ".join([*said, duration(news.time_s)])
        return f"{name} {news.state}: {what}"

    def _round(self, news: News) -> str:
        return f"round {news.round}/{news.job.case.scenario.rounds}"

    def _tell(self, news: News, first: bool) -> None:
        now_s = time.monotonic()
        if first or news.state != "running" or now_s - self._told_s.get(news.job, 0.0) >= LINE_S:
            self._told_s[news.job] = now_s
            self._print(self.line(news))

    def _counts(self) -> str:
        states = Counter(news.state for news in self.over)
        waiting = self.runs - self.finished - len(self.over) - len(self.running)
        parts = [(self.finished + states["done"], "done"), (states["failed"], "failed"), (len(self.running), "running")]
        parts += [(states["stopped"], "stopped"), (waiting, "waiting")]
        return ", ".join(f"{number:,} {word}" for number, word in parts if number or word == "done")

    def _refresh(self) -> None:
        if self._screen is not None:
            began_s = time.monotonic()
            self._screen.update(self._view(), refresh=True)
            ended_s = time.monotonic()
            self._due_s = ended_s + max(REFRESH_S, SHARE * (ended_s - began_s))

    def _view(self) -> RenderableType:
        head = Table.grid(padding=(0, 2))
        bar = ProgressBar(total=max(self.runs, 1), completed=self.finished + len(self.over), width=32)
        took = duration(time.monotonic() - self._began_s)
        head.add_row(Text(self.name, "bold"), bar, Text(self._counts()), Text(took, "dim"))
        table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
        for name in ("case", "settings", "state", "accuracy", "time"):
            table.add_column(
                name, justify="right" if name in ("accuracy", "time") else "left", no_wrap=name != "settings"
            )
        shown = [*self.over[-LAST:], *list(self.running.values())[:MOST_RUNNING]]
        for news in shown:
            table.add_row(*self._cells(news), style=COLOURS.get(news.state, ""))
        more = len(self.running) - MOST_RUNNING
        return Group(head, table, *([Text(f"and {more} others that run", "dim")] if more > 0 else []))

    def _cells(self, news: News) -> list[Text]:
        case = news.job.case
        state = self._round(news) if news.state == "running" and news.round else news.state
        return [
            Text(f"{'tuning ' if news.job.trial else ''}{case.number}"),
            Text(printable(case.label)),
            Text(printable(f"{state}: {news.reason}" if news.reason else state)),
            Text("" if news.accuracy is None else f"{news.accuracy:.3f}"),
            Text(duration(news.time_s) if news.time_s else ""),
        ]

    def _print(self, text: str) -> None:
        self.console.print(Text(text), soft_wrap=True)
