"""The dry-run driver: what a job would come to, told by the cluster that would carry it out.

Run as `python -m jobs.dry_run` by Ray's Jobs API, with its ticket in the environment and no GPU.
It tokenizes the rows, builds the model without its weights, looks at the nodes, and writes what it
found as one marked line of JSON, the last of its log.
"""

import json
import logging
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any

import ray
from transformers.utils.logging import disable_progress_bar

from jobs.distributed import task_of
from jobs.errors import ResourcesUnavailableError
from jobs.finetune_specs import FinetuneSpec
from jobs.placement import Node, Placement, judge_memory, judge_placement, live_nodes
from jobs.search_specs import SearchSpec
from jobs.tickets import DRY_RUN_MARK, TICKET_VARIABLE, DryRunTicket
from jobs.tuning.capacity import plan_trials
from workers.errors import WorkerError
from workers.preview import preview


def main() -> int:
    """Answer one ticket; also what would fail the job is an answer."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    disable_progress_bar()
    ticket = DryRunTicket.model_validate_json(os.environ[TICKET_VARIABLE])
    answer = answer_to(ticket, _nodes())
    sys.stdout.write(f"\n{DRY_RUN_MARK}{json.dumps(answer)}\n")
    return 0


def answer_to(ticket: DryRunTicket, nodes: Sequence[Node]) -> dict[str, Any]:
    """What the job would come to on these nodes.

    Returns:
        Under `result` the fields of the API's answer, or under `failure` the code and message with
        which the job would fail.
    """
    try:
        return {"result": _result(ticket, nodes)}
    except WorkerError as error:
        return {"failure": {"code": error.code, "message": str(error)}}


def _result(ticket: DryRunTicket, nodes: Sequence[Node]) -> dict[str, Any]:
    spec = ticket.spec
    tuned = spec if isinstance(spec, FinetuneSpec) else spec.trial_spec({})
    task = task_of(tuned, ticket.files)
    placement = judge_placement(tuned.resources, nodes)
    found = preview(task, tuned.resources.fewest_workers, placement.device)
    memory = found.memory
    bytes_each = memory.total if memory else None
    if isinstance(spec, SearchSpec):
        placement = _place_trials(spec, nodes, bytes_each, placement)
    fit = judge_memory(tuned.resources, nodes, bytes_each)
    return {
        **asdict(found),
        "memory": {**asdict(memory), "total": memory.total} if memory else None,
        "memory_fits": fit.fits,
        "memory_reason": fit.reason,
        "placement": asdict(placement),
    }


def _place_trials(
    spec: SearchSpec, nodes: Sequence[Node], bytes_each: int | None, of_one: Placement
) -> Placement:
    """Whether as many trials at a time as are wished can ever be placed."""
    try:
        plan_trials(spec, nodes, bytes_each)
    except ResourcesUnavailableError as error:
        return replace(of_one, possible=False, reason=str(error))
    return of_one


def _nodes() -> list[Node]:
    """The nodes that are alive."""
    ray.init(logging_level=logging.WARNING)
    try:
        return live_nodes()
    finally:
        ray.shutdown()


if __name__ == "__main__":
    sys.exit(main())
