"""The trials of a search as a person reads them: a table, and one of them on a line."""

from collections.abc import Iterable, Sequence

from rich.table import Table
from rich.text import Text

from jobs.search_space import Value
from jobs.tickets import TrialState
from service.answers import JobRead, SearchRead
from service.cli.figures import duration_text
from service.trial_answers import TrialRead

_STYLES = {
    TrialState.RUNNING: "cyan",
    TrialState.COMPLETED: "green",
    TrialState.STOPPED: "yellow",
    TrialState.CANCELLED: "magenta",
    TrialState.FAILED: "red",
}
_BEST = "★"


def trials_table(job: JobRead, trials: Iterable[TrialRead]) -> Table:
    """Return one line a trial; an objective that is not measured yet shows its last value, dim."""
    metrics, fields = searched_metrics(job), list(job.spec.get("space", {}))
    table = Table(box=None)
    table.add_column("", min_width=len(_BEST))
    table.add_column("trial", min_width=len("trial-0000"))
    table.add_column("state", min_width=len("cancelling"))
    for name in (*metrics, *map(_short_name, fields), "steps", "time"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("reason", no_wrap=True)
    for trial in trials:
        table.add_row(
            _BEST if trial.is_best else "",
            trial.id,
            state_text(trial),
            *(_objective_cell(trial, metric) for metric in metrics),
            *(value_text(trial.values[name]) if name in trial.values else "" for name in fields),
            _steps_text(trial),
            "" if trial.seconds is None else duration_text(trial.seconds),
            trial.reason or "",
        )
    return table


def trial_line(trial: TrialRead) -> Text:
    """Write a trial's state, objectives, values and why it ended early on one line."""
    line = Text(f"{trial.id} ").append_text(state_text(trial))
    for metric in trial.objectives:
        line.append(f"  {metric} {objective_text(trial, metric)}")
    for field, value in trial.values.items():
        line.append(f"  {field}={value_text(value)}")
    return line.append(f"  ({trial.reason})" if trial.reason else "")


def search_text(search: SearchRead) -> str:
    """Write how many trials have ended, and the best values so far."""
    figures = [f"{search.num_ended}/{search.num_trials or '?'} trials"]
    figures += [f"best {metric} {value:.4g}" for metric, value in search.best.items()]
    return "  ".join([*figures, *search.best_trials[:1]])


def state_text(trial: TrialRead) -> Text:
    """Return a trial's state in its colour; one that is about to be cancelled says so."""
    is_ending = trial.cancel_requested and trial.state is TrialState.RUNNING
    return Text("cancelling" if is_ending else trial.state, style=_STYLES[trial.state])


def objective_text(trial: TrialRead, metric: str) -> str:
    """Write an objective and its standard error, where there is one."""
    text = f"{trial.objectives[metric]:.4g}"
    return f"{text} ± {trial.errors[metric]:.2g}" if metric in trial.errors else text


def value_text(value: Value) -> str:
    """Write a value of a searched field as a spec would hold it, with four digits."""
    if isinstance(value, list):
        return f"[{', '.join(value)}]"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def searched_metrics(job: JobRead) -> Sequence[str]:
    """Return what a search aims at, the most important first."""
    return [str(objective["metric"]) for objective in job.spec.get("objectives", [])]


def best_first(job: JobRead) -> str:
    """Return the sort key that puts a search's best trial first."""
    objectives = job.spec.get("objectives", [])
    return "-objective" if objectives and objectives[0]["mode"] == "max" else "objective"


def _short_name(field: str) -> str:
    """Leave out `adapter.` or `training.`, which share no name of a field."""
    return field.partition(".")[2]


def _objective_cell(trial: TrialRead, metric: str) -> Text:
    if metric in trial.objectives:
        return Text(objective_text(trial, metric))
    last = trial.metrics.get(metric)
    return Text("" if last is None else f"{last:.4g}", style="dim")


def _steps_text(trial: TrialRead) -> str:
    return "" if trial.step is None else f"{trial.step}/{trial.total_steps or '?'}"
