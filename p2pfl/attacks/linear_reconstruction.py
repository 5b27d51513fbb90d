"""Linear reconstruction: the steps of any peer, heard or not, from what they did to all that was heard since.

Source: El Mrini, Cyffers & Bellet 2024, "Privacy Attacks in Decentralized Learning", section 4. **It is assumed that
every peer adds much the same in all rounds**, as with full batches and a small learning rate; how that is used see
`_mixtures.py`. Whether the victim's row is `determined` hangs on the graph; `residual` is how far the mail is from what
peers that add the same in all rounds would have sent, of how far they moved. With batches drawn anew it is large, and
the row of a peer that was not heard is wrong. Of a row that is determined the examples are sought as in iDLG.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Annotated, ClassVar

import pydantic

from p2pfl.attacks._mixtures import heard, solved
from p2pfl.attacks.idlg import Idlg
from p2pfl.curiosity import Case, Finding
from p2pfl.evidence import Clue, Part, Sight, same
from p2pfl.messages import Figure

Positive = Annotated[int, pydantic.Field(gt=0)]
READING, HOLDS = "linear", "posts of others, in which the victim's steps are mixed over time"


@dataclass(frozen=True)
class LinearReconstruction:
    """Steps of peers near and far, by least squares if all rounds repeat them; then idlg, by its `iterations` and
    `restarts`.
    """

    iterations: Positive = 3000
    restarts: Positive = 4
    scores: ClassVar[str] = "images"

    def spy(self, case: Case) -> Iterator[Finding]:
        """See Attack: one reading, whatever the clue says."""
        place: dict[str, Figure] = {} if case.clue else {"threat": "mixtures", "holds": HOLDS}
        if not case.weights(case.round) or not case.heard:
            why = "no posts were heard that mix from round to round"
            yield Finding(READING, figures={**place, "determined": False, "why": why})
            return
        posts = heard(case)
        row, part = solved(case, posts), rule(case, posts.lead)
        figures: dict[str, Figure] = {**place, "determined": row.determined, "residual": row.residual}
        if not row.determined or part is None:
            yield Finding(READING, figures=figures)
            return
        shift_D = row.pulled_D if len(part.lrs) > 1 else None
        steps = replace(part, at=row.at_D, momentum_S=None, shift_S=shift_D)
        clue = Clue(case.victim, case.round, "", "", (Sight(READING, row.moved_D, (steps,)),))
        for finding in Idlg(self.iterations, self.restarts).spy(replace(case, clue=clue)):
            displacements = {(case.victim, steps.first): row.moved_D.cpu()}
            yield replace(finding, displacements=displacements, figures={**finding.figures, **figures})


def rule(case: Case, lead: float | None) -> Part | None:
    """By which rule the steps of that round were taken: as anybody's of whom there is a clue, if there is one.

    What precedes a first post mixes with nothing where peers did not begin at one point.
    """
    if case.round == 1 and lead is None:
        return None
    for j in (case.victim, *sorted(set(case.heard) - set(case.attackers) - {case.victim})):
        clue = case.clue if j == case.victim else case.clue_of(j, case.round)
        if clue is not None and clue.sights:
            return replace(clue.sights[0].parts[0], peer=case.victim, share=1.0, up=same, down=same)
    return None
