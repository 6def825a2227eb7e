"""What this service can do, read off the very specs that jobs are held to."""

from typing import Annotated, Literal, get_args, get_origin

from pydantic import BaseModel

from jobs.method_specs import PresetName
from jobs.objective_specs import ObjectiveMetric, TaskMeasure
from jobs.search_specs import AlgorithmSpec
from jobs.specs import JobKind
from service.callers import Caller, Scope
from service.capability_answers import (
    AdapterRead,
    BoundsRead,
    CapabilitiesRead,
    LimitsRead,
    SearchersRead,
)
from service.middleware import MAX_BODY_BYTES
from service.settings import ServiceSettings
from workers.specs import AdapterSpec, DataSpec, TrainingSpec
from workers.tasks.registry import TASKS
from workers.tasks.specs import ScorerSpec


def capabilities(version: str, settings: ServiceSettings, caller: Caller) -> CapabilitiesRead:
    """What a caller can ask of this service."""
    return CapabilitiesRead(
        version=version,
        project=caller.project,
        scopes=sorted(caller.scopes, key=list(Scope).index),
        kinds=list(JobKind),
        tasks=list(TASKS),
        scorers=[choices(scorer, "kind")[0] for scorer in members(ScorerSpec)],
        base_models=list(settings.allowed_base_models),
        adapters=[_adapter(spec) for spec in members(AdapterSpec)],
        presets=list(PresetName),
        dtypes=choices(TrainingSpec, "dtype"),
        quantizations=choices(TrainingSpec, "quantization"),
        chat_templates=choices(DataSpec, "chat_template"),
        searchers=SearchersRead(
            algorithms=choices(AlgorithmSpec, "name"),
            early_stopping=choices(AlgorithmSpec, "early_stopping"),
            objectives=list(ObjectiveMetric),
            task_measures=list(TaskMeasure),
        ),
        limits=LimitsRead(
            max_body_bytes=MAX_BODY_BYTES,
            **settings.model_dump(include=set(LimitsRead.model_fields)),
        ),
    )


def choices(spec: type[BaseModel], field: str) -> list[str]:
    """The words that a field takes; none if it takes anything or is not there."""
    info = spec.model_fields.get(field)
    return [] if info is None else list(_words(info.annotation))


def members(union: object) -> list[type[BaseModel]]:
    """The specs among which a discriminated union chooses."""
    if get_origin(union) is Annotated:
        return members(get_args(union)[0])
    if isinstance(union, type):
        return [union]
    return [spec for member in get_args(union) for spec in members(member)]


def _words(annotation: object) -> list[str]:
    if get_origin(annotation) is Literal:
        return [word for word in get_args(annotation) if isinstance(word, str)]
    return [word for member in get_args(annotation) for word in _words(member)]


def _adapter(spec: type[BaseModel]) -> AdapterRead:
    rank = spec.model_json_schema()["properties"]["r"]
    return AdapterRead(
        method=choices(spec, "method")[0],
        projections=choices(spec, "projection"),
        rank=BoundsRead.model_validate(rank),
    )
