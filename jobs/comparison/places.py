"""Where the trainings of a comparison run, as many at a time as the cluster holds."""

from collections.abc import Callable
from functools import partial

import ray
from ray import ObjectRef
from ray.actor import ActorHandle

from jobs.compare_specs import CompareSpec
from jobs.comparison.training import Training
from jobs.comparison.warm_place import WarmPlace
from jobs.comparison.worker_group import train_in_group
from jobs.tickets import JobTicket
from jobs.tuning.capacity import Capacity
from workers.warm_start import SharedRows

RESTARTS = 2
"""Times that a training begins again, from its last checkpoint, where its process has died."""

Start = Callable[[Training, str], ObjectRef]
"""Starts a training that reports to a run; its answer is a `TrainingRecord`, or None if stopped."""


class Places:
    """Processes that stay warm, or room for worker groups; `close` takes them down.

    Args:
        ticket: The job's.
        capacity: How many there are, and what each holds.
        rows: What every training reads.
        stop: The driver's `StopSignal`.
    """

    def __init__(
        self, ticket: JobTicket, capacity: Capacity, rows: SharedRows, stop: ActorHandle
    ) -> None:
        self.free: list[Start] = []
        self._opening: dict[ObjectRef, ActorHandle] = {}
        self._actors: list[ActorHandle] = []
        spec, document = ticket.spec, ticket.model_dump_json()
        assert isinstance(spec, CompareSpec)
        if spec.resources.most_workers > 1:
            # A launcher that held CPUs could keep them from its own workers.
            launcher = ray.remote(num_cpus=0)(train_in_group)
            start = partial(_start_group, launcher, document, stop)
            self.free += [start] * capacity.num_trials
            return
        self._rows = ray.put(rows)  # kept: an actor that starts again reads it anew
        place = ray.remote(
            num_cpus=capacity.bundle["CPU"],
            num_gpus=capacity.bundle.get("GPU", 0),
            max_restarts=-1,
            max_task_retries=RESTARTS,
        )(WarmPlace)
        for _ in range(capacity.num_trials):
            actor = place.remote(document, self._rows, stop)
            self._actors.append(actor)
            self._opening[actor.__ray_ready__.remote()] = actor

    @property
    def opening(self) -> list[ObjectRef]:
        """Places that wait for their resources, to be opened once there is an answer."""
        return list(self._opening)

    def open(self, ref: ObjectRef) -> None:
        """Make a place free that has its resources now."""
        ray.get(ref)
        self.free.append(self._opening.pop(ref).train.remote)

    def close(self) -> None:
        """Give everything back to the cluster."""
        for actor in self._actors:
            ray.kill(actor)


def _start_group(
    launcher: "ray.remote_function.RemoteFunction",
    ticket: str,
    stop: ActorHandle,
    training: Training,
    run_id: str,
) -> ObjectRef:
    return launcher.remote(ticket, training, run_id, stop)
