"""Registered models as a person reads them: the list, one model, one version."""

from collections.abc import Iterator, Sequence
from datetime import datetime

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from service.model_answers import ModelRead, VersionRead

_LABEL_WIDTH = len("base model  ")


def models_table(models: Sequence[ModelRead]) -> Table:
    """Return one row a model."""
    table = Table("model", "newest", "aliases", "project", "created", box=None)
    for model in models:
        aliases = " ".join(f"{alias}={version}" for alias, version in model.aliases.items())
        newest = "" if model.newest_version is None else str(model.newest_version)
        table.add_row(model.name, newest, aliases, model.project, _local(model.created_at))
    return table


def model_view(model: ModelRead, versions: Sequence[VersionRead]) -> RenderableType:
    """Return a model with versions of it."""
    table = Table("version", "aliases", "method", "rank", "K", "loss", "created", "job", box=None)
    for version in versions:
        table.add_row(
            str(version.version),
            " ".join(version.aliases),
            version.method or "",
            _figure(version.rank),
            _figure(version.curvature),
            _figure(version.scores.get("eval_loss", version.scores.get("train_loss"))),
            _local(version.created_at),
            version.job_id or "",
        )
    facts = [("model", model.name), ("project", model.project), ("page", model.links.mlflow_model)]
    return Group(_lines(facts), table)


def version_view(version: VersionRead) -> Text:
    """Return everything about one version that is known."""
    return _lines(list(_facts(version)))


def _facts(version: VersionRead) -> Iterator[tuple[str, str]]:
    yield "model", f"{version.name}/{version.version}"
    if version.aliases:
        yield "aliases", ", ".join(version.aliases)
    known = [("base model", version.base_model), ("digest", version.base_model_digest)]
    known += [("method", version.method), ("rank", _figure(version.rank))]
    known += [("K", _figure(version.curvature)), ("job", version.job_id)]
    known += [("trial", version.trial_id), ("created", _local(version.created_at))]
    yield from ((label, value) for label, value in known if value)
    for name, value in version.scores.items():
        yield name.removeprefix("num_").replace("trainable_", ""), _figure(value)
    for each in version.evaluations:
        score = f"{each.value:.4f} [{each.low:.4f}, {each.high:.4f}], {each.num_rows} rows"
        yield f"{each.task}", f"{each.metric} {score}, {each.job_id}"
    yield "page", version.links.mlflow_version


def _lines(facts: Sequence[tuple[str, str]]) -> Text:
    view = Text()
    for label, value in facts:
        view.append(f"{label:<{_LABEL_WIDTH}} ", style="dim").append(f"{value}\n")
    view.rstrip()
    return view


def _figure(value: float | None) -> str:
    return "" if value is None else f"{value:.6g}"


def _local(moment: datetime | None) -> str:
    return "" if moment is None else f"{moment.astimezone():%Y-%m-%d %H:%M}"
