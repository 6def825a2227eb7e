"""The dry-run driver: what a job would come to, told by the cluster that would carry it out.

Run as `python -m jobs.dry_run` by Ray's Jobs API, with its ticket in the environment and no GPU.
It tokenizes the rows, builds the model without its weights, looks at the nodes, and writes what it
found as one marked line of JSON, the last of its log.
"""

import json
import logging
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import ray
from transformers.utils.logging import disable_progress_bar

from jobs.analyze_specs import AnalyzeSpec
from jobs.compare_plan import plan
from jobs.compare_specs import CompareSpec
from jobs.distributed import task_of
from jobs.errors import ResourcesUnavailableError
from jobs.evaluate_specs import EvaluateSpec
from jobs.evaluation.questions import read_tasks
from jobs.finetune_specs import FinetuneSpec
from jobs.placement import Node, Placement, judge_memory, judge_placement, live_nodes
from jobs.search_specs import SearchSpec
from jobs.task_specs import TaskSpec
from jobs.tickets import DRY_RUN_MARK, TICKET_VARIABLE, DryRunTicket, FileRef
from jobs.tuning.capacity import plan_trials
from workers.errors import WorkerError
from workers.preview import preview, preview_prompts
from workers.reach import confine
from workers.sources import read_rows
from workers.specs import ResourcesSpec
from workers.tasks.few_shot import with_shots

_Files = Mapping[str, FileRef]


def main() -> int:
    """Answer one ticket; also what would fail the job is an answer."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    disable_progress_bar()
    ticket = DryRunTicket.model_validate_json(os.environ[TICKET_VARIABLE])
    confine(ticket.reach)
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
    files = ticket.files
    match ticket.spec:
        case FinetuneSpec() as spec:
            return _training(spec, files, nodes)
        case SearchSpec() as spec:
            asked = {"num_questions": _num_questions(spec.tasks, files)} if spec.tasks else {}
            found = _training(spec.trial_spec({}), files, nodes) | asked
            return found | {"placement": _place_trials(spec, nodes, found)}
        case CompareSpec() as spec:
            return _comparison(spec, files, nodes)
        case EvaluateSpec() as spec:
            return _evaluation(spec, files, nodes)
        case AnalyzeSpec() as spec:
            return _analysis(spec, files, nodes)


def _training(spec: FinetuneSpec, files: _Files, nodes: Sequence[Node]) -> dict[str, Any]:
    placement = judge_placement(spec.resources, nodes)
    found = preview(task_of(spec, files), spec.resources.fewest_workers, placement.device)
    memory = found.memory
    fit = judge_memory(spec.resources, nodes, memory.total if memory else None)
    return {
        **asdict(found),
        "memory": {**asdict(memory), "total": memory.total} if memory else None,
        "memory_fits": fit.fits,
        "memory_reason": fit.reason,
        "placement": asdict(placement),
    }


def _comparison(spec: CompareSpec, files: _Files, nodes: Sequence[Node]) -> dict[str, Any]:
    """The first training, with what it is one of."""
    planned = plan(spec)
    first = next(method for method in spec.methods if not method.is_base)
    one = spec.training_spec(first.name, spec.rates_of(first)[0], spec.seeds[0])
    num_questions = _num_questions(spec.tasks, files)
    return {
        **_training(one, files, nodes),
        "num_trainings": planned.num_trainings,
        "num_evaluations": planned.num_evaluations,
        "num_questions": num_questions,
    }


def _evaluation(spec: EvaluateSpec, files: _Files, nodes: Sequence[Node]) -> dict[str, Any]:
    tasks = read_tasks(spec.tasks, files)
    messages = {
        f"task {each.task.name}": [
            with_shots(question, each.shots).messages for question in each.questions
        ]
        for each in tasks
    }
    most = spec.max_new_tokens if spec.mode == "generation" else None
    return {
        "num_evaluations": len(spec.tasks) * len(spec.models),
        "num_questions": sum(len(each.questions) for each in tasks),
        **asdict(preview_prompts(spec.base_model, spec.chat_template, messages, most)),
        **_place_unestimated(spec.resources, nodes),
    }


def _analysis(spec: AnalyzeSpec, files: _Files, nodes: Sequence[Node]) -> dict[str, Any]:
    paths = {file_id: Path(ref.uri) for file_id, ref in files.items()}
    columns = {str(field): name for field, name in spec.columns.items()}
    rows = read_rows(spec.data, name="data", files=paths, columns=columns)
    messages = [
        [{"role": turn.role, "content": turn.content} for turn in row.turns[:-1]] for _, row in rows
    ]
    return {
        "num_questions": len(messages),
        **asdict(preview_prompts(spec.base_model, spec.chat_template, {"data": messages})),
        **_place_unestimated(spec.resources, nodes),
    }


def _num_questions(tasks: Sequence[TaskSpec], files: _Files) -> int:
    return sum(len(task.questions) for task in read_tasks(tasks, files))


def _place_unestimated(resources: ResourcesSpec, nodes: Sequence[Node]) -> dict[str, Any]:
    """Where workers would run whose memory is not foretold."""
    return {
        "memory_reason": "memory is estimated for trainings alone",
        "placement": asdict(judge_placement(resources, nodes)),
    }


def _place_trials(
    spec: SearchSpec, nodes: Sequence[Node], of_one: Mapping[str, Any]
) -> dict[str, Any]:
    """Whether as many trials at a time as are wished can ever be placed."""
    memory, placement = of_one["memory"], Placement(**of_one["placement"])
    try:
        plan_trials(spec, nodes, memory["total"] if memory else None)
    except ResourcesUnavailableError as error:
        placement = replace(placement, possible=False, reason=str(error))
    return asdict(placement)


def _nodes() -> list[Node]:
    """The nodes that are alive."""
    ray.init(logging_level=logging.WARNING)
    try:
        return live_nodes()
    finally:
        ray.shutdown()


if __name__ == "__main__":
    sys.exit(main())
