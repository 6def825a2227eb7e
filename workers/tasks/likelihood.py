"""Scoring a question by the log-likelihoods of its options.

`acc` takes the option with the largest sum, `acc_norm` the one with the largest sum per character
of the option; the first of equals. Definitions of lm-evaluation-harness
(https://github.com/EleutherAI/lm-evaluation-harness).
"""

import math
from collections.abc import Sequence

from workers.tasks.task import Choices, LikelihoodMetric


def score_choices(
    choices: Choices, log_likelihoods: Sequence[float]
) -> dict[LikelihoodMetric, float]:
    """Whether the likeliest option is the right one, by each rule: 0 or 1.

    Args:
        choices: The options.
        log_likelihoods: Of each option's continuation given its context, summed over tokens
            (nats).

    Raises:
        ValueError: If there are not as many numbers as options, or one is NaN.
    """
    if len(log_likelihoods) != len(choices.options):
        raise ValueError(
            f"got {len(log_likelihoods)} log-likelihoods for {len(choices.options)} options"
        )
    if any(map(math.isnan, log_likelihoods)):
        raise ValueError("a log-likelihood is NaN; the model's logits are not finite")
    per_character = [
        log_likelihood / len(option.text)
        for log_likelihood, option in zip(log_likelihoods, choices.options, strict=True)
    ]
    return {
        "acc": float(_first_largest(log_likelihoods) == choices.gold),
        "acc_norm": float(_first_largest(per_character) == choices.gold),
    }


def _first_largest(values: Sequence[float]) -> int:
    return max(range(len(values)), key=values.__getitem__)
