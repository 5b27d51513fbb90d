"""Every error raised on purpose, drawn as a tree: who is to blame decides what happens next.

P2PFLError
├── ScenarioError   the user's input is wrong   one line, exit code 2, nothing started
├── RemoteError     another peer broke a rule   counted against that peer, the run goes on
└── LocalError      this peer cannot go on      this peer stops, the others go on, exit code 3
"""

from __future__ import annotations


class P2PFLError(Exception):
    """The root: catch this to catch all that this project raises on purpose."""


class ScenarioError(P2PFLError):
    """What the user asked for cannot be done: `problem (where): remedy`, in one line.

    `path` names the culprit as keys from the top of the scenario; whoever read the file turns it
    into `where` (file:line) by `located`.
    """

    def __init__(self, problem: str, remedy: str = "", path: tuple[str | int, ...] = (), where: str = "") -> None:
        self.problem, self.remedy, self.path, self.where = problem, remedy, path, where
        place = f" ({where})" if where else ""
        super().__init__(" ".join(f"{problem}{place}{': ' + remedy if remedy else ''}".split()))

    def under(self, *path: str | int) -> ScenarioError:
        """The same error, its culprit seen from further up."""
        return ScenarioError(self.problem, self.remedy, (*path, *self.path), self.where)

    def located(self, where: str) -> ScenarioError:
        """The same error, with the place in a file."""
        return ScenarioError(self.problem, self.remedy, self.path, where)


class RemoteError(P2PFLError):
    """A peer sent what it must not send."""


class LocalError(P2PFLError):
    """This peer cannot go on, and says why."""
