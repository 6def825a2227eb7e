"""Giving an alias to a model version that answers better than the version that has it."""

from collections.abc import Sequence

from mlflow import MlflowClient

from jobs.compare_report.promotion import Decision, paired_test
from jobs.evaluate_specs import EvaluateSpec
from jobs.evaluation.pins import Pins, VersionName, holder_of, version_in
from jobs.evaluation.scores import pooled, task_scores
from workers.document import Document
from workers.predictions import Prediction


class Promotion(Document):
    """What became of the alias."""

    alias: str
    """The alias in question."""

    candidate: VersionName
    """The version that may get it."""

    holder: VersionName | None
    """The version that had it; None if none had."""

    decision: Decision | None
    """What the paired test over all tasks' rows said; None where there was nothing to test."""

    is_promoted: bool
    """Whether the candidate got the alias."""

    sentence: str
    """The above for people."""


def promote(
    spec: EvaluateSpec, pins: Pins, predictions: Sequence[Prediction], client: MlflowClient
) -> Promotion | None:
    """Move the alias if the candidate is shown to be better, or nobody holds it.

    It moves only if it still points where it did when the job began. An attempt that is repeated
    after the move comes to the same answer.

    Args:
        spec: The evaluation's.
        pins: What its models are.
        predictions: Of all models.
        client: Connected to the registry.

    Returns:
        What became of it; None if the spec asks for no promotion.
    """
    if spec.promote_if_better is None:
        return None
    alias, level = spec.promote_if_better.alias, spec.promote_if_better.level
    name = spec.candidate.name
    candidate = version_in(pins.models[name])
    assert candidate is not None, "pins are of versions"
    holder = version_in(pins.models[pins.holder]) if pins.holder is not None else None
    label = f"Version {candidate.version} of {candidate.model}"
    decision: Decision | None = None
    if holder == candidate:
        is_promoted, sentence = False, f"{label} holds {alias!r} already: nothing to do."
    else:
        if pins.holder is not None:
            scores = task_scores(predictions)
            decision = paired_test(pooled(scores[name]), pooled(scores[pins.holder]), level=level)
        is_better = decision is None or decision.is_promoted
        now = _move(alias, candidate, holder, client) if is_better else holder
        is_promoted = now == candidate
        sentence = _sentence(alias, label, holder, now, is_promoted, is_better)
        if decision is not None:
            sentence += f" {decision.reason}"
    return Promotion(
        alias=alias,
        candidate=candidate,
        holder=holder,
        decision=decision,
        is_promoted=is_promoted,
        sentence=sentence,
    )


def _move(
    alias: str, candidate: VersionName, expected: VersionName | None, client: MlflowClient
) -> VersionName | None:
    """Point the alias at the candidate if it is where it was; returns where it points then."""
    now = holder_of(alias, candidate.model, client)
    if now == expected:
        client.set_registered_model_alias(candidate.model, alias, candidate.version)
        return candidate
    return now


def _sentence(
    alias: str,
    label: str,
    holder: VersionName | None,
    now: VersionName | None,
    is_promoted: bool,
    is_better: bool,
) -> str:
    if not is_better:
        assert holder is not None, "without a holder the candidate is better"
        return f"{alias!r} stays with version {holder.version}."
    if not is_promoted:
        moved = "was removed" if now is None else f"moved to version {now.version}"
        return f"{alias!r} {moved} during the evaluation. {label} did not get it."
    if holder is None:
        return f"{label} got {alias!r}, which no version had."
    return f"{label} got {alias!r}, which version {holder.version} had."
