"""By what trials can be sorted, and their order."""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence

from jobs.search_space import Value
from service.errors import FieldError, RequestInvalidError
from service.trial_records import Trial
from workers.specs import RunMetric

_Key = Callable[[Trial], Value]

_KEYS: Mapping[str, _Key] = {
    "number": lambda trial: trial.number,
    "id": lambda trial: trial.number,
    "state": lambda trial: trial.state.value,
    "started_at": lambda trial: trial.started_at.timestamp() if trial.started_at else None,
    "seconds": lambda trial: trial.seconds,
    "steps": lambda trial: trial.step,
}


def sorted_trials(
    trials: Iterable[Trial], sort: str, fields: Sequence[str], objectives: Sequence[str]
) -> list[Trial]:
    """Trials in order; those without the value come last, and equal ones by their number.

    Args:
        trials: Those to sort.
        sort: What is compared, after a "-" the largest first.
        fields: Those that the search varies.
        objectives: Metrics that the search aims at, the most important first.

    Raises:
        RequestInvalidError: If nothing of that name can be compared.
    """
    ordered = sorted(trials, key=lambda trial: trial.number)
    keys = _keys_of(ordered, fields, objectives)
    name = sort.removeprefix("-")
    if name not in keys:
        raise _unknown(sort, keys)
    key = keys[name]
    present = [trial for trial in ordered if key(trial) is not None]
    absent = [trial for trial in ordered if key(trial) is None]
    present.sort(key=lambda trial: _rank(key(trial)), reverse=sort.startswith("-"))
    return present + absent


def _keys_of(
    trials: Iterable[Trial], fields: Iterable[str], objectives: Sequence[str]
) -> dict[str, _Key]:
    seen = {metric for trial in trials for metric in trial.metrics}
    measured = sorted(seen | {metric for metric in RunMetric if "progress" not in metric})
    return {
        **_KEYS,
        "objective": lambda trial: trial.objectives.get(objectives[0]),
        **{f"objective/{name}": _getter(name, "objectives") for name in objectives},
        **{name: _getter(name, "values") for name in fields},
        **{name: _getter(name, "metrics") for name in measured},
    }


def _getter(name: str, part: str) -> _Key:
    return lambda trial: getattr(trial, part).get(name)


def _rank(value: Value) -> tuple[bool, float, str]:
    """Numbers before texts: a searched field may take both."""
    if isinstance(value, bool | int | float):
        return False, value, ""
    return True, 0.0, value if isinstance(value, str) else json.dumps(value)


def _unknown(sort: str, keys: Iterable[str]) -> RequestInvalidError:
    message = f"give one of {', '.join(keys)}; with a - before it, the largest come first"
    return RequestInvalidError(
        f"sort: {sort!r} is nothing to sort trials by; {message}",
        [FieldError(field="sort", value=sort, message=message)],
    )
