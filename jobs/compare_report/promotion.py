"""Whether a new adapter takes an alias over: only where the same questions show it to be better."""

import math

import numpy as np

from jobs.compare_report.difference import LEVEL
from jobs.compare_report.method_results import TaskScores, require_same_rows
from jobs.compare_report.sign_flip import mcnemar, sampled_sign_flip
from workers.document import Document


class Decision(Document):
    """What became of a candidate, and why."""

    is_promoted: bool
    """Whether it is shown to be better."""

    num_rows: int
    """Questions."""

    num_better: int
    """Questions on which the candidate scores more than the holder."""

    num_worse: int
    """Questions on which it scores less."""

    difference: float
    """Mean score of the candidate less that of the holder."""

    p_value: float
    """One-sided: chance of a gain as large if the two were alike."""

    reason: str
    """The above in a sentence."""


def paired_test(
    new_scores: TaskScores, holder_scores: TaskScores, *, level: float = 1 - LEVEL
) -> Decision:
    """Test whether the adapter with the new scores is better than the holder of an alias.

    Exact McNemar, one-sided, where each score is 0 or 1; else a sign-flip test by draws. It speaks
    of these two adapters on questions such as these, not of how they were trained. Each candidate
    that is tried against one holder has its own chance `level` of a promotion by luck.

    Args:
        new_scores: Of the candidate.
        holder_scores: Of the present holder.
        level: Largest p-value that promotes.

    Raises:
        DifferentQuestionsError: If the two did not answer the same questions.
    """
    require_same_rows(new_scores, holder_scores, "promotion")
    gains = [new - held for new, held in zip(new_scores.scores, holder_scores.scores, strict=True)]
    num_better, num_worse = sum(gain > 0 for gain in gains), sum(gain < 0 for gain in gains)
    if all(score in (0, 1) for score in (*new_scores.scores, *holder_scores.scores)):
        p_value = mcnemar(num_better, num_worse, "greater")
    else:
        p_value = sampled_sign_flip(np.array(gains), "greater")
    difference = math.fsum(gains) / len(gains) if gains else 0.0
    is_promoted = difference > 0 and p_value <= level
    numbers = (
        f"{num_better} answers better and {num_worse} worse of {len(gains)}, "
        f"{100 * difference:+.2f} points, p = {p_value:.2g}"
    )
    outcome = "is better than" if is_promoted else "is not shown to be better than"
    return Decision(
        is_promoted=is_promoted,
        num_rows=len(gains),
        num_better=num_better,
        num_worse=num_worse,
        difference=difference,
        p_value=p_value,
        reason=f"The candidate {outcome} the holder ({numbers}).",
    )
