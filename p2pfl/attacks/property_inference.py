"""Property inference: does the victim's batch hold an example of some kind that the task does not ask about?

Source: Melis, Song, De Cristofaro & Shmatikov 2019, "Exploiting Unintended Feature Leakage in Collaborative Learning",
section 4.3; Wang & Zhang, "Matrix Sketching for Secure Collaborative Machine Learning" (DBCL), section 5.3. There (see
the former's code) a victim's batch either consists of such examples or has none, `share: 1`: far easier to tell than
one among many.
The attacker makes batches of examples of its own, whose column it knows, and takes the victim's steps with them, at the
point and by the reading of each sight. Half of its examples teach, the other half show how sure that is, and the other
way round: so scores, log odds, can be compared from round to round.
Shapes: N examples of the attacker's, n batches of either kind, K numbers of each.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import numpy
import pydantic
from numpy.typing import NDArray

from p2pfl.attacks._features import Drawn, Rows, draw, features
from p2pfl.attacks._judges import forest, matched, odds
from p2pfl.attacks._target import batches_of, readings
from p2pfl.curiosity import Case, Finding
from p2pfl.evidence import Sight
from p2pfl.messages import Watch

FEWEST = 4
"""Examples of either kind that an attacker must hold."""
TRIES = 64
"""For each batch that has the property by chance, so many are drawn."""
METHODS = {"matched": matched, "forest": forest}


@dataclass(frozen=True)
class PropertyInference:
    """Tells whether a victim's batch holds an example whose `column` is `value`, by batches of the attacker's own.

    `method`: matched, a linear filter; or forest, a random forest as published. It learns from `batches` with such
    examples and as many without, mixed of at most `examples` of its own. `share` is the part that such examples are of
    a batch which has any; left out, as many as come about by chance.
    """

    column: str
    value: str
    method: Literal["matched", "forest"] = "matched"
    batches: Annotated[int, pydantic.Field(ge=4)] = 100
    examples: Annotated[int, pydantic.Field(ge=8)] = 400
    share: Annotated[float, pydantic.Field(gt=0, le=1)] | None = None
    scores: ClassVar[str] = "property"
    EXAMPLES: ClassVar = ({"column": "race", "value": "Black"}, {"column": "a", "value": "b", "method": "forest"})

    def spy(self, case: Case) -> Iterator[Finding]:
        """See Attack: a score for each reading, the log odds that the batch has the property."""
        return readings(case, lambda sight, watch: self._scored(case, sight, watch))

    def _scored(self, case: Case, sight: Sight, watch: Watch) -> Finding:
        said = {"column": self.column, "value": self.value}
        whose = next((at for at, part in enumerate(sight.parts) if part.peer == case.victim), 0)
        batches = batches_of(Sight(sight.reading, sight.moved_O, sight.parts[whose : whose + 1]))
        rng = case.seeds.numpy("property", sight.reading)
        has_N, why = self._known(case)
        if has_N is None:
            return Finding(sight.reading, batches, figures={**said, "why": why})
        groups = [self._drawn(sight, whose, half, float(has_N.mean()), rng) for half in self._halves(has_N, rng)]
        found = features(case, sight, groups, watch)
        if found is None:
            return Finding(sight.reading, batches, figures={**said, "why": "time was up"})
        seen_1K, one_2nK, other_2nK = found
        score, own_auc = odds(METHODS[self.method], seen_1K, one_2nK, other_2nK, int(rng.integers(1 << 31)))
        return Finding(sight.reading, batches, score=score, figures={**said, "own_auc": own_auc})

    def _known(self, case: Case) -> tuple[NDArray[numpy.bool_] | None, str]:
        """Which of the attacker's examples have the property; or why these do not do."""
        if self.column not in case.own.columns:
            there = ", ".join(sorted(case.own.columns)) or "none"
            return None, f"the attacker's examples have no column {self.column!r}, they have {there}"
        has_N = numpy.asarray(case.own.columns[self.column]).astype(str) == self.value
        having = int(has_N.sum())
        if min(having, len(has_N) - having) < FEWEST:
            return None, f"the attacker holds {having} examples with {self.value!r} and {len(has_N) - having} without"
        return has_N, ""

    def _halves(self, has_N: NDArray[numpy.bool_], rng: numpy.random.Generator) -> list[tuple[Rows, Rows]]:
        """Examples with the property and without, twice, none in both: half of them with it where there are so many."""
        with_N, without_N = (rng.permutation(numpy.flatnonzero(each_N)) for each_N in (has_N, ~has_N))
        with_N = with_N[: self.examples // 2]
        without_N = without_N[: self.examples - len(with_N)]
        return [(with_N[half::2], without_N[half::2]) for half in range(2)]

    def _drawn(
        self, sight: Sight, whose: int, examples: tuple[Rows, Rows], rate: float, rng: numpy.random.Generator
    ) -> Drawn:
        """Batches of all parts: of part `whose` first those with the property, then as many without."""
        drawn = []
        for at, part in enumerate(sight.parts):
            size = sum(part.batches)
            has_n = rng.binomial(size, rate, 2 * self.batches)
            if at == whose:
                has_n = numpy.append(self._positive(size, rate, rng), numpy.zeros(self.batches, numpy.int64))
            drawn.append(draw(*examples, has_n, size, rng))
        return tuple(drawn)

    def _positive(self, size: int, rate: float, rng: numpy.random.Generator) -> Rows:
        """How many examples of each batch have the property, where some have."""
        if self.share is not None:
            return numpy.full(self.batches, max(1, round(self.share * size)))
        natural = rng.binomial(size, rate, TRIES * self.batches)
        return numpy.append(natural[natural > 0], numpy.ones(self.batches, numpy.int64))[: self.batches]
