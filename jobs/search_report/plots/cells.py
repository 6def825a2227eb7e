"""Objectives of the trials that share two fields' values or bins: mean and standard error."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

from jobs.search_report.plots.field_axis import Bin, FieldAxis
from jobs.search_report.trial_table import TrialRecord, completed


@dataclass(frozen=True)
class Cell:
    """The completed trials in one bin of each field."""

    across: Bin
    up: Bin
    num_trials: int
    mean: float

    error: float | None
    """Standard error over trials; of one trial, over its seeds; None where there is one seed."""


def cells(
    trials: Sequence[TrialRecord], across: FieldAxis, up: FieldAxis, metric: str
) -> list[Cell]:
    """Cells that hold a completed trial, by rising bins."""
    members: dict[tuple[int, int], list[TrialRecord]] = {}
    bins: dict[tuple[int, int], tuple[Bin, Bin]] = {}
    for trial in completed(trials, [metric]):
        place = across.bin_of(trial.values[across.field]), up.bin_of(trial.values[up.field])
        key = place[0].index, place[1].index
        bins[key] = place
        members.setdefault(key, []).append(trial)
    return [_cell(*bins[key], members[key], metric) for key in sorted(members)]


def _cell(across: Bin, up: Bin, trials: list[TrialRecord], metric: str) -> Cell:
    values = [trial.objectives[metric] for trial in trials]
    error = trials[0].errors.get(metric)
    if len(values) > 1:
        error = stdev(values) / math.sqrt(len(values))
    return Cell(across, up, len(values), fmean(values), error)
