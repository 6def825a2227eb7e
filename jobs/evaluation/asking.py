"""Asking models the questions of tasks, spread over Ray workers.

Every answer is in a file of the job's storage as soon as it is given. A worker that dies is started
again and goes on there, and so does the next attempt of a job that was stopped or lost its driver.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager

import ray
import torch
from ray import ObjectRef
from ray.actor import ActorHandle
from ray.exceptions import OutOfMemoryError as RayOutOfMemoryError
from ray.exceptions import RayError, RayTaskError
from transformers.utils.logging import disable_progress_bar

from jobs.errors import StoppedEarlyError, WorkersLostError
from jobs.evaluation.answering import answer, sum_progress
from jobs.evaluation.asked import Asked
from jobs.evaluation.storage import read_stored, stored_file
from jobs.placement import live_nodes, plan_workers
from jobs.restart_notes import last_line
from jobs.stop_signal import StopListener
from workers.errors import OutOfMemoryError, WorkerError
from workers.evaluate import Progress, Shard
from workers.predictions import Mode, Prediction, merge_predictions
from workers.specs import ResourcesSpec

_SHARD_RESTARTS = 2
_LOOK_INTERVAL_S = 1.0
_STOP_GRACE_S = 10.0


def ask(
    asked: Asked,
    folder: str,
    resources: ResourcesSpec,
    stop: ActorHandle,
    on_progress: Callable[[Progress], None] = lambda _: None,
) -> list[Prediction]:
    """Ask all models all questions, going on with what is in the folder already.

    Args:
        asked: What is asked.
        folder: Path or address on storage that every node reaches; of this evaluation alone, though
            its modes may share it.
        resources: What each worker reserves; rows are spread over the fewest workers.
        stop: The driver's `StopSignal`.
        on_progress: Told every second; rows of all models and workers count.

    Returns:
        The predictions in order of task, model and row.

    Raises:
        ResourcesUnavailableError: If the cluster can never place the workers.
        WorkerError: If a model, an adapter or a row cannot be used.
        WorkersLostError: If a worker died more often than it is started again.
        StoppedEarlyError: If the evaluation was asked to stop, and did.
    """
    count = resources.fewest_workers
    bundle = plan_workers(resources, live_nodes()).resources_per_worker
    board = ray.remote(num_cpus=0)(ProgressBoard).remote()
    # With one call each process gives its memory back.
    remote = ray.remote(max_calls=1)(_answer_shard).options(
        num_cpus=bundle["CPU"],
        num_gpus=bundle.get("GPU", 0),
        max_retries=_SHARD_RESTARTS,
        scheduling_strategy="SPREAD",
    )
    shards = [Shard(index, count) for index in range(count)]
    answers = [remote.remote(asked, folder, shard, stop, board) for shard in shards]
    with _explaining_loss():
        try:
            is_complete = _await(answers, board, stop, on_progress)
        finally:
            for each in answers:
                ray.cancel(each, force=True)
    if not is_complete:
        raise StoppedEarlyError("stopped; the answers so far are kept")
    return merge_predictions(read_stored(folder, _file_name(asked.mode, shard)) for shard in shards)


class ProgressBoard:
    """Where workers tell how far they are; an actor."""

    def __init__(self) -> None:
        self._shards: dict[int, Progress] = {}

    def tell(self, shard: int, progress: Progress) -> None:
        """Note how far a worker is."""
        self._shards[shard] = progress

    def total(self, count: int) -> Progress | None:
        """How far all are together; None until every one of `count` workers has begun."""
        parts = list(self._shards.values())
        if len(parts) < count:
            return None
        return sum_progress(parts, max(part.seconds for part in parts))


def _await(
    answers: Sequence[ObjectRef],
    board: ActorHandle,
    stop: ActorHandle,
    on_progress: Callable[[Progress], None],
) -> bool:
    """Wait for all workers; returns whether they have answered everything."""
    waiting, outcomes = list(answers), []
    while waiting:
        done, waiting = ray.wait(waiting, timeout=_LOOK_INTERVAL_S)
        outcomes += [ray.get(each) for each in done]
        total = ray.get(board.total.remote(len(answers)))
        if total is not None:
            on_progress(total)
        if ray.get(stop.poll.remote()):
            # Some may wait for a place, or for the end of a long answer.
            done, waiting = ray.wait(waiting, num_returns=len(waiting), timeout=_STOP_GRACE_S)
            outcomes += [ray.get(each) for each in done]
            return not waiting and all(outcomes)
    return all(outcomes)


@contextmanager
def _explaining_loss() -> Iterator[None]:
    """Let errors of workers out as such, and say how others were lost."""
    try:
        yield
    except RayTaskError as error:
        if isinstance(error.cause, WorkerError):
            raise error.cause from error
        raise
    except RayOutOfMemoryError as error:
        raise OutOfMemoryError(
            f"Ray ended a worker since its node ran out of memory: {last_line(str(error))}; "
            "try a smaller batch_rows, or fewer workers on a node"
        ) from error
    except RayError as error:
        raise WorkersLostError(
            f"a worker died {_SHARD_RESTARTS + 1} times; "
            f"the job's log shows why: {last_line(str(error))}"
        ) from error


def _answer_shard(
    asked: Asked, folder: str, shard: Shard, stop: ActorHandle, board: ActorHandle
) -> bool:
    """Answer one worker's rows; returns whether all are answered."""
    with closing(StopListener(stop.poll.remote)) as listener:
        disable_progress_bar()
        reserved = ray.get_runtime_context().get_assigned_resources()
        torch.set_num_threads(max(1, int(reserved.get("CPU", 1))))
        device = torch.device("cuda" if reserved.get("GPU") else "cpu")
        with stored_file(folder, _file_name(asked.mode, shard)) as path:
            is_complete = answer(
                asked,
                path,
                shard,
                device,
                lambda progress: board.tell.remote(shard.index, progress),
                lambda: listener.requested,
            )
        ray.get(board.total.remote(1))  # calls arrive in their order: all is told now
        return is_complete


def _file_name(mode: Mode, shard: Shard) -> str:
    return f"{mode}-{shard.index}-of-{shard.count}.jsonl"
