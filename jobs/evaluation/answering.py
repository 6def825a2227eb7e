"""One worker's part of an evaluation, without Ray."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from jobs.evaluation.adapted import adapted, by_method
from jobs.evaluation.asked import Asked
from jobs.evaluation.questions import read_tasks
from workers.base_model import load_base_model, load_tokenizer
from workers.chat_templates import set_chat_template, use_template_of
from workers.decoding import BatchLimits
from workers.errors import OutOfMemoryError
from workers.evaluate import EvaluationMethod, Progress, Shard, TaskQuestions, evaluate
from workers.mlflow_download import adapter_folder

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def sum_progress(parts: Sequence[Progress], seconds: float) -> Progress:
    """How far several are together, which have taken a time together."""
    return Progress(
        num_done=sum(part.num_done for part in parts),
        num_rows=sum(part.num_rows for part in parts),
        num_tokens=sum(part.num_tokens for part in parts),
        seconds=seconds,
    )


def answer(
    asked: Asked,
    predictions: Path,
    shard: Shard,
    device: torch.device,
    on_progress: Callable[[Progress], None] = lambda _: None,
    stop_requested: Callable[[], bool] = lambda: False,
) -> bool:
    """Answer one worker's rows, models of one PEFT method after those of another.

    Args:
        asked: What is asked.
        predictions: File that answers are appended to; what it holds is not asked again.
        shard: Which rows are this worker's.
        device: Where the models compute.
        on_progress: Told after each answer; must not block.
        stop_requested: Asked after each answer.

    Returns:
        Whether all are answered; not if it was asked to stop.

    Raises:
        WorkerError: If a model, an adapter or a row cannot be used.
    """
    tasks = read_tasks(asked.tasks, asked.files)
    folders = {
        name: None if reference is None else adapter_folder(reference, name)
        for name, reference in asked.models.items()
    }
    groups = by_method(folders)
    tokenizer = _tokenizer(asked, folders)
    model = load_base_model(asked.base_model, asked.dtype).to(device)
    counter = _Counter(len(folders) * _num_rows(tasks, shard), on_progress)
    method = EvaluationMethod(
        asked.mode, asked.max_new_tokens, BatchLimits(max_rows=asked.batch_rows)
    )
    for group in groups:
        with _explaining_memory(), adapted(model, group) as (together, adapters):
            result = evaluate(
                together,
                tokenizer,
                tasks,
                predictions,
                adapters=adapters,
                method=method,
                shard=shard,
                on_progress=counter.tell,
                stop_requested=stop_requested,
            )
        if not result.is_complete:
            return False
        counter.end_group()
    return True


class _Counter:
    """Adds the progress of one group of models to that of the groups before it."""

    def __init__(self, num_rows: int, on_progress: Callable[[Progress], None]) -> None:
        self._num_rows = num_rows
        self._on_progress = on_progress
        self._before = self._now = Progress(0, 0)

    def tell(self, progress: Progress) -> None:
        self._now = sum_progress([self._before, progress], self._before.seconds + progress.seconds)
        self._on_progress(replace(self._now, num_rows=self._num_rows))

    def end_group(self) -> None:
        self._before = self._now


def _tokenizer(asked: Asked, folders: Mapping[str, Path | None]) -> "PreTrainedTokenizerBase":
    tokenizer = load_tokenizer(asked.base_model)
    if asked.chat_template is not None:
        set_chat_template(tokenizer, asked.chat_template)
    else:
        adapters = {name: folder for name, folder in folders.items() if folder is not None}
        use_template_of(tokenizer, adapters)
    return tokenizer


def _num_rows(tasks: Sequence[TaskQuestions], shard: Shard) -> int:
    return sum(len(range(shard.index, len(each.questions), shard.count)) for each in tasks)


@contextmanager
def _explaining_memory() -> Iterator[None]:
    try:
        yield
    except torch.OutOfMemoryError as error:
        reason = str(error).splitlines()[0]
        raise OutOfMemoryError(
            f"a worker ran out of memory ({reason}); try a smaller batch_rows"
        ) from error
