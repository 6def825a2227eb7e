"""What a job would come to, as a person reads it."""

from collections.abc import Iterator

from rich.table import Table
from rich.text import Text

from jobs.search_specs import SearchSpec
from service.answers import DryRunRead, MemoryRead

_UNITS = ("B", "KiB", "MiB", "GiB", "TiB")


def dry_run_view(found: DryRunRead, search: SearchSpec | None = None) -> Table:
    """Return a label and a value for everything that a dry run found.

    Args:
        found: What the service answers; of a search, it is about one trial.
        search: The search, if the job is one.
    """
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim")
    table.add_column(overflow="fold")
    if search is not None:
        for label, value in _search_facts(search):
            table.add_row(label, value)
    for label, value in _facts(found):
        table.add_row(label, value)
    return table


def size_text(num_bytes: int) -> str:
    """Write a size with three digits."""
    size, unit = float(num_bytes), _UNITS[0]
    for unit in _UNITS:
        if size < 1000 or unit == _UNITS[-1]:
            break
        size /= 1024
    return f"{size:.3g} {unit}"


def _search_facts(search: SearchSpec) -> Iterator[tuple[str, Text]]:
    seeds = f", each by up to {search.seeds_per_trial} seeds" if search.seeds_per_trial > 1 else ""
    yield "trials", Text(f"up to {search.num_trials:,}{seeds}")
    if search.budget.steps_per_trial is not None:
        yield "steps a trial", Text(f"at most {search.budget.steps_per_trial:,}")
    yield "one trial", Text("all that follows, with the searched fields as they are outside space")


def _facts(found: DryRunRead) -> Iterator[tuple[str, Text]]:
    for label, number in (
        ("trainings", found.num_trainings),
        ("evaluations", found.num_evaluations),
        ("questions", found.num_questions),
    ):
        if number is not None:
            yield label, Text(f"{number:,}")
    if found.num_trainings is not None:
        yield "one training", Text("all that follows, with the first method that is trained")
    yield from _amounts(found)
    yield from _memory(found)
    placement = found.placement
    where = f"on the {placement.device.upper()}s of the cluster" if placement.possible else None
    yield "can be placed", _verdict(placement.possible, where or placement.reason)


def _amounts(found: DryRunRead) -> Iterator[tuple[str, Text]]:
    total, trainable = found.num_parameters, found.num_trainable_parameters
    tokens = f"{found.num_tokens:,}; the longest"
    if trainable is None:
        yield "tokens", Text(f"{tokens} prompt has {found.longest_row:,}")
        yield "parameters", Text(f"{total:,}")
        return
    yield "rows", Text(f"{found.num_train_rows:,}, and {found.num_held_out_rows:,} held out")
    yield "tokens", Text(f"{tokens} row has {found.longest_row:,}")
    yield "steps", Text(f"{found.steps:,}")
    share = trainable / total
    yield "trainable", Text(f"{trainable:,} of {total:,} parameters ({share:.3%})")


def _memory(found: DryRunRead) -> Iterator[tuple[str, Text]]:
    if found.memory is None:
        yield "memory", Text("unknown")
    else:
        yield "memory", Text(f"about {size_text(found.memory.total)} for each worker at its peak")
        for name in MemoryRead.model_fields:
            if name != "total":
                size = size_text(getattr(found.memory, name))
                yield f"  {name.replace('_', ' ')}", Text(size)
    yield "memory is there", _verdict(found.memory_fits, found.memory_reason)


def _verdict(is_good: bool | None, reason: str | None) -> Text:
    word, style = {True: ("yes", "green"), False: ("no", "red"), None: ("unknown", "yellow")}[
        is_good
    ]
    return Text(f"{word}: {reason}" if reason else word, style=style)
