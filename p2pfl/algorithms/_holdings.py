"""What is said of a clue: what was heard, and what of it is unknown, guessed, or known only roughly."""

from __future__ import annotations

from typing import TYPE_CHECKING

from p2pfl.algorithms import _momentum
from p2pfl.algorithms._known import Known
from p2pfl.messages import PeerId

if TYPE_CHECKING:
    from p2pfl.algorithms._replay import Replay


def said(replay: Replay, victim: PeerId, r: int, known: Known, unseen: int) -> str:
    """What was heard, and what of it is unknown, guessed or only roughly so."""
    first = "two successive posts" if replay.letter(victim, r) else "a post, without that of the round before,"
    partners = sorted(replay.pulls(r).get(victim, {}))
    heard = [j for j in partners if j in replay.notes.members or replay.letter(j, r) is not None]
    all_ = len(heard) == len(partners)
    said = [f"{first} of peer {victim}"]
    said.append("what all of its partners posted" if all_ else f"{len(heard)} of its {len(partners)} partners'")
    if known.guessed:
        said.append("where the others are, which is guessed to be where it is")
    elif not all_ and not unseen:
        said.append("where all began")
    if unseen:
        said.append(f"{'an unseen step is' if unseen == 1 else f'{unseen} unseen steps are'} unknown too")
    if known.rough:
        said.append("from where some were taken is known only roughly")
    if r > 1 and replay.notes.trainings[victim].momentum and not _momentum.before(replay, victim, r):
        said.append("the momentum before is taken for none")
    return ", ".join(said[:-1]) + f", and {said[-1]}"
