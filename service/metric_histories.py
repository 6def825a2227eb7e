"""Series of metrics out of an MLflow server, page by page over its REST API.

MLflow's own client makes a Python object of every point and reads on without end; here a point
takes 24 bytes, and there is a bound. What was read once is kept, since a run's history only grows:
the next look asks for what has come since.
"""

import math
import sys
import threading
from array import array
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from mlflow.utils.credentials import get_default_host_creds
from mlflow.utils.rest_utils import http_request, verify_rest_response
from mlflow.utils.search_utils import SearchUtils

from service.boundaries import History

_HISTORY = "/api/2.0/mlflow/metrics/get-history"
_SAMPLES = "/api/2.0/mlflow/metrics/get-history-bulk-interval"
_MAX_SAMPLES = 2500
"""Most points of one run that MLflow answers at once, evenly chosen where there are more."""
_PAGE = 10_000
"""Points of a page: MLflow takes one to two seconds over as many on a busy machine."""
_MAX_KEPT = 2_000_000
"""Points that are kept, of all series together: 48 MB."""


@dataclass
class _Read:
    """What was read of a series, in MLflow's order: by time."""

    steps: "array[int]" = field(default_factory=lambda: array("q"))
    values: "array[float]" = field(default_factory=lambda: array("d"))
    times_ms: "array[int]" = field(default_factory=lambda: array("q"))

    def __len__(self) -> int:
        return len(self.steps)

    def add(self, points: Iterable[Mapping[str, Any]]) -> None:
        """Take points in as MLflow's JSON has them."""
        for point in points:
            self.steps.append(int(point.get("step", 0)))
            self.values.append(_number(point["value"]))
            self.times_ms.append(int(point["timestamp"]))

    def copy(self) -> "_Read":
        """The same, which can be read on without changing what others hold."""
        return _Read(self.steps[:], self.values[:], self.times_ms[:])

    def follows(self, page: list[Mapping[str, Any]]) -> bool:
        """Whether a page begins with the last point of this."""
        first = _Read()
        first.add(page[:1])
        return (
            first.steps == self.steps[-1:]
            and first.times_ms == self.times_ms[-1:]
            and first.values.tobytes() == self.values[-1:].tobytes()  # NaN is equal to itself here
        )

    def history(self, is_sampled: bool = False) -> History:
        """What was read, for others."""
        return History(self.steps, self.values, self.times_ms, is_sampled)


class MetricHistories:
    """The series of one MLflow server; every method blocks.

    Args:
        tracking_uri: Of the server, http or https.
    """

    def __init__(self, tracking_uri: str) -> None:
        self._uri = tracking_uri
        self._kept: OrderedDict[tuple[str, str], _Read] = OrderedDict()
        self._lock = threading.Lock()

    def read(self, run_id: str, key: str, most_points: int) -> History:
        """Every point of a series, or the samples of a long one that MLflow chooses.

        Args:
            run_id: The run.
            key: The metric.
            most_points: How many may be read; of a series whose steps go further than that, MLflow
                is asked for samples.
        """
        kept = self._recall(run_id, key)
        if kept is None:
            samples = _Read()
            samples.add(self.between(run_id, key))
            if len(samples) < _MAX_SAMPLES:
                return samples.history()
            if samples.steps[-1] - samples.steps[0] >= most_points:
                return samples.history(is_sampled=True)
        found = self._read_on(run_id, key, kept or _Read(), most_points)
        if found is None:  # steps are there many times over, or it changes while it is read
            samples = _Read()
            samples.add(self.between(run_id, key))
            return samples.history(is_sampled=True)
        self._keep(run_id, key, found)
        return found.history()

    def between(
        self, run_id: str, key: str, first_step: int | None = None, last_step: int | None = None
    ) -> list[Mapping[str, Any]]:
        """At most 2500 points by step, the first and the last among them.

        Args:
            run_id: The run.
            key: The metric.
            first_step: The first one that is looked at; None, as `last_step`, for all.
            last_step: The last one.
        """
        bounds = {"start_step": first_step, "end_step": last_step}
        query = {"run_ids": [run_id], "metric_key": key, "max_results": _MAX_SAMPLES}
        given = {name: step for name, step in bounds.items() if step is not None}
        return self._get(_SAMPLES, query | given)[0]

    def values_at(self, run_id: str, key: str, steps: Iterable[int]) -> dict[int, float]:
        """The last value of a metric at each of some steps where it has one."""
        wanted = sorted(set(steps))
        if not wanted:
            return {}
        found = self.between(run_id, key, wanted[0], wanted[-1])
        if len(found) >= _MAX_SAMPLES:  # some were left out
            found = [each for step in wanted for each in self.between(run_id, key, step, step)]
        values = {int(point.get("step", 0)): _number(point["value"]) for point in found}
        return {step: values[step] for step in wanted if step in values}

    def _read_on(self, run_id: str, key: str, kept: _Read, most_points: int) -> _Read | None:
        """All of a series, of which the beginning is known; None if that is too much to read."""
        found, most = kept.copy(), len(kept) + most_points
        # The last known point comes again, which shows that nothing has slipped in before it.
        offset = max(0, len(found) - 1)
        while len(found) <= most:
            query = {"run_id": run_id, "metric_key": key, "max_results": _PAGE}
            page, has_more = self._get(_HISTORY, query | _token(offset))
            if len(found) and not found.follows(page):
                return self._read_on(run_id, key, _Read(), most_points) if len(kept) else None
            found.add(page[1:] if len(found) else page)
            offset = max(0, len(found) - 1)
            if not has_more:
                return found
        return None

    def _get(self, path: str, query: Mapping[str, Any]) -> tuple[list[Mapping[str, Any]], bool]:
        credentials = get_default_host_creds(self._uri)
        response = http_request(credentials, path, "GET", params=query)
        answer = verify_rest_response(response, path).json()
        return answer.get("metrics", []), bool(answer.get("next_page_token"))

    def _recall(self, run_id: str, key: str) -> _Read | None:
        with self._lock:
            kept = self._kept.get((run_id, key))
            if kept is not None:
                self._kept.move_to_end((run_id, key))
            return kept

    def _keep(self, run_id: str, key: str, found: _Read) -> None:
        with self._lock:
            self._kept[run_id, key] = found
            self._kept.move_to_end((run_id, key))
            while sum(map(len, self._kept.values())) > _MAX_KEPT and len(self._kept) > 1:
                self._kept.popitem(last=False)


def _token(offset: int) -> dict[str, str]:
    """MLflow's name for the page that begins after so many points."""
    return {"page_token": SearchUtils.create_page_token(offset).decode()} if offset else {}


def _number(value: float | str) -> float:
    """A value as MLflow's JSON has it: NaN is a word, infinity the largest float of its tables."""
    number = float(value)
    return math.copysign(math.inf, number) if abs(number) >= sys.float_info.max else number
