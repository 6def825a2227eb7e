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
from dataclasses import asdict
from pathlib import Path
from typing import Any

import ray
from transformers.utils.logging import disable_progress_bar

from jobs.placement import Node, judge_memory, judge_placement, live_nodes
from jobs.tickets import DRY_RUN_MARK, TICKET_VARIABLE, DryRunTicket
from workers.errors import WorkerError
from workers.preview import preview
from workers.train_setup import TrainTask


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
    task = TrainTask(
        base_model=spec.base_model,
        adapter=spec.adapter,
        data=spec.data,
        files={file_id: Path(ref.uri) for file_id, ref in ticket.files.items()},
        training=spec.training,
    )
    placement = judge_placement(spec.resources, nodes)
    found = preview(task, spec.resources.fewest_workers, placement.device)
    memory = found.memory
    fit = judge_memory(spec.resources, nodes, memory.total if memory else None)
    return {
        **asdict(found),
        "memory": {**asdict(memory), "total": memory.total} if memory else None,
        "memory_fits": fit.fits,
        "memory_reason": fit.reason,
        "placement": asdict(placement),
    }


def _nodes() -> list[Node]:
    """The nodes that are alive."""
    ray.init(logging_level=logging.WARNING)
    try:
        return live_nodes()
    finally:
        ray.shutdown()


if __name__ == "__main__":
    sys.exit(main())
