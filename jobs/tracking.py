"""The one writer of a run: off the step path, in batches, through MLflow outages."""

import logging
import queue
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial

from mlflow import MlflowClient
from mlflow.entities import Metric

logger = logging.getLogger(__name__)

_FLUSH_INTERVAL_S = 1.0
_MAX_BATCH = 1000
"""MLflow's limit on the metrics of one log_batch call."""
_MAX_BACKOFF_S = 10.0


class MetricsNotSavedError(Exception):
    """MLflow stayed away until the end; the message says how many values are missing there."""


class RunWriter:
    """Sends metrics, tags and documents to one MLflow run from a background thread.

    Writing never blocks. While MLflow is away, values wait in memory and are sent afterwards.
    A run that resumes from a checkpoint repeats some steps: what MLflow has is not sent again.
    """

    def __init__(self, client: MlflowClient, run_id: str) -> None:
        self._client = client
        self._run_id = run_id
        self._queue: queue.SimpleQueue[Metric] = queue.SimpleQueue()
        self._requests: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._last_steps: dict[str, int] = {}
        self._closing = threading.Event()
        self._give_up = threading.Event()
        self._num_unsent = 0
        self._thread = threading.Thread(target=self._run, name="run-writer", daemon=True)
        self._thread.start()

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Queue the values of one step."""
        now_ms = time.time_ns() // 1_000_000
        for key, value in values.items():
            self._queue.put(Metric(key, value, now_ms, step))

    def write_document(self, path: str, text: str) -> None:
        """Queue an artifact."""
        self._requests.put(partial(self._client.log_text, self._run_id, text, path))

    def write_tag(self, key: str, value: str) -> None:
        """Queue a tag; it comes after the documents and tags that were queued before it."""
        self._requests.put(partial(self._client.set_tag, self._run_id, key, value))

    def close(self, timeout_s: float = 600.0) -> None:
        """Send what is left and end the thread.

        Raises:
            MetricsNotSavedError: If MLflow did not take everything within `timeout_s`.
        """
        self._closing.set()
        self._thread.join(timeout_s)
        if self._thread.is_alive():
            self._give_up.set()
            missing = self._num_unsent + self._queue.qsize() + self._requests.qsize()
            raise MetricsNotSavedError(
                f"MLflow did not take {missing} values within {timeout_s:.0f} s; "
                "they are missing from the run; bring MLflow up again, and the job goes on"
            )

    def _run(self) -> None:
        while not self._give_up.is_set():
            is_last = self._closing.wait(_FLUSH_INTERVAL_S)
            if not self._requests.empty():
                self._num_unsent = 1
                self._repeat(self._requests.get())
            elif batch := self._drain():
                self._repeat(partial(self._log_metrics, batch))
            elif is_last:
                return

    def _drain(self) -> list[Metric]:
        batch: list[Metric] = []
        while len(batch) < _MAX_BATCH and not self._queue.empty():
            batch.append(self._queue.get())
        self._num_unsent = len(batch)
        return batch

    def _repeat(self, send: Callable[[], None]) -> None:
        """Send until MLflow takes it."""
        backoff_s = 0.5
        while not self._give_up.is_set():
            try:
                send()
            except Exception:
                logger.warning("MLflow is away, what is to be told waits", exc_info=True)
                self._give_up.wait(backoff_s)
                backoff_s = min(2 * backoff_s, _MAX_BACKOFF_S)
            else:
                self._num_unsent = 0
                return

    def _log_metrics(self, batch: Sequence[Metric]) -> None:
        fresh = [metric for metric in batch if metric.step > self._last_step(metric.key)]
        if fresh:
            self._client.log_batch(self._run_id, metrics=fresh)

    def _last_step(self, key: str) -> int:
        """Last step of a metric that an earlier attempt has sent; -1 if there is none."""
        if key not in self._last_steps:
            history = self._client.get_metric_history(self._run_id, key)
            self._last_steps[key] = max((metric.step for metric in history), default=-1)
        return self._last_steps[key]
