"""How far a comparison is: trainings and answers to whole tasks, counted together."""

from jobs.compare_plan import ComparePlan
from jobs.tracking import RunWriter
from workers.evaluate import Progress
from workers.specs import RunMetric


class CompareProgress:
    """Tells the comparison's run how many of its parts are done.

    Args:
        writer: Of the comparison's run.
        planned: What it comes to.
    """

    def __init__(self, writer: RunWriter, planned: ComparePlan) -> None:
        self._writer = writer
        self._num_trainings = planned.num_trainings
        self._num_evaluations = planned.num_evaluations
        self._last = -1

    def trained(self, number: int) -> None:
        """Take the number of trainings that have ended."""
        self._tell(number)

    def asked(self, asked: Progress, passes_before: int, num_passes: int) -> None:
        """Take how far one of several passes over all questions is."""
        share = (passes_before + asked.num_done / asked.num_rows) / num_passes
        self._tell(self._num_trainings + int(share * self._num_evaluations))

    def _tell(self, done: int) -> None:
        if done > self._last:
            self._last = done
            total = self._num_trainings + self._num_evaluations
            self._writer.write(done, {RunMetric.STEP: done, RunMetric.TOTAL_STEPS: total})
