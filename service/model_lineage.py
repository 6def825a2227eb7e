"""Where a model version comes from and how it was judged, as a graph.

Its tags tell of data, base model, spec, code and evaluations; the service's own records add files,
jobs, and the jobs that those were reruns of. Only evaluations score registered versions;
comparisons score adapters of their own.
"""

import json
from copy import copy
from typing import Self

from pydantic import TypeAdapter

from jobs.model_references import VersionReference
from jobs.specs import JobSpec, file_ids
from jobs.tickets import RunTag
from service.callers import Caller
from service.errors import JobNotFoundError
from service.lifecycle import Jobs
from service.model_answers import LineageEdge, LineageKind, LineageNode, LineageRead
from service.model_views import version_path
from service.models import Models, OwnedVersion
from service.tables import Job
from service.version_facts import DataFact, data, evaluations

_SPEC: TypeAdapter[JobSpec] = TypeAdapter(JobSpec)
_MAX_RERUNS = 20


class Lineages:
    """The lineages of versions; those that `acting_for` answers show one caller's jobs alone.

    Args:
        models: Knows the versions.
        jobs: Knows the jobs.
    """

    def __init__(self, models: Models, jobs: Jobs) -> None:
        self._models = models
        self._jobs = jobs

    def acting_for(self, caller: Caller) -> Self:
        """The lineages as they are for a caller."""
        acting = copy(self)
        acting._models = self._models.acting_for(caller)
        acting._jobs = self._jobs.acting_for(caller)
        return acting

    async def of(self, name: str, selector: str) -> LineageRead:
        """The lineage of a version.

        Raises:
            MlflowUnavailableError: If MLflow does not answer.
            ModelAliasNotFoundError: If the model has no such alias.
            ModelNotFoundError: If there is no such model.
            ModelVersionNotFoundError: If the model has no such version.
        """
        found = await self._models.version(name, selector)
        tags = found.version.tags
        graph = _Graph()
        made = _version_node(found)
        maker = await self._job(tags.get(RunTag.JOB_ID))
        graph.add(made)
        _add_makers(graph, found, maker, made)
        _add_inputs(graph, found, maker, maker.id if maker else made.id)
        await self._add_reruns(graph, maker)
        for each in evaluations(tags):
            if (judge := await self._job(each.job_id)) is not None:
                score = f"{each.task} {each.metric} {each.value:g} [{each.low:g}, {each.high:g}]"
                graph.add(_job_node(judge))
                graph.join(made.id, judge.id, "evaluated", score)
        return graph.read()

    async def _add_reruns(self, graph: "_Graph", job: Job | None) -> None:
        """Add the jobs that a job was a rerun of, one after the other."""
        for _ in range(_MAX_RERUNS):
            earlier = await self._job(job.rerun_of) if job else None
            if job is None or earlier is None:
                return
            graph.add(_job_node(earlier))
            graph.join(earlier.id, job.id, "rerun")
            job = earlier

    async def _job(self, job_id: str | None) -> Job | None:
        """A job, if it exists for the caller."""
        try:
            return await self._jobs.get(job_id) if job_id else None
        except JobNotFoundError:
            return None


class _Graph:
    """Nodes, each once, and edges."""

    def __init__(self) -> None:
        self._nodes: dict[str, LineageNode] = {}
        self._edges: list[LineageEdge] = []

    def add(self, node: LineageNode) -> None:
        self._nodes.setdefault(node.id, node)

    def join(self, source: str, target: str, relation: str, detail: str | None = None) -> None:
        edge = LineageEdge(source=source, target=target, relation=relation, detail=detail)
        self._edges.append(edge)

    def read(self) -> LineageRead:
        return LineageRead(nodes=list(self._nodes.values()), edges=self._edges)


def _add_makers(graph: _Graph, found: OwnedVersion, job: Job | None, made: LineageNode) -> None:
    """Add job, trial and run, each joined to the next, and the last to the version."""
    before = None
    if job is not None:
        graph.add(_job_node(job))
        before = job.id
    trial_id = found.version.tags.get(RunTag.TRIAL_ID)
    if job is not None and trial_id:
        link = f"/v1/jobs/{job.id}/trials/{trial_id}"
        node = LineageNode(
            id=f"{job.id}/{trial_id}", kind=LineageKind.TRIAL, name=trial_id, link=link
        )
        graph.add(node)
        graph.join(job.id, node.id, "tried")
        before = node.id
    if run_id := found.version.run_id:
        node = LineageNode(id=f"runs:/{run_id}", kind=LineageKind.RUN, name=run_id)
        graph.add(node)
        if before is not None:
            graph.join(before, node.id, "tracked")
        before = node.id
    if before is not None:
        graph.join(before, made.id, "registered")


def _add_inputs(graph: _Graph, found: OwnedVersion, job: Job | None, target: str) -> None:
    """Add what went into the version, joined to what was made of it."""
    tags = found.version.tags
    files = _files_by_role(job)
    for fact in data(tags):
        node = _data_node(fact, files.get(fact.role))
        graph.add(node)
        graph.join(node.id, target, fact.role)
    if base_model := tags.get("base_model"):
        node = _base_model_node(base_model, tags.get("base_model_digest"))
        graph.add(node)
        graph.join(node.id, target, "base_model")
    if digest := tags.get("spec_sha256"):
        name = job.name if job else "spec"
        link = f"/v1/jobs/{job.id}" if job else None
        graph.add(
            LineageNode(
                id=f"spec:{digest}", kind=LineageKind.SPEC, name=name, digest=digest, link=link
            )
        )
        graph.join(f"spec:{digest}", target, "spec")
    if code := tags.get("code_version"):
        graph.add(LineageNode(id=f"code:{code}", kind=LineageKind.CODE, name=f"hyplora {code}"))
        graph.join(f"code:{code}", target, "code")


def _version_node(found: OwnedVersion) -> LineageNode:
    name, version = found.version.name, found.version.version
    return LineageNode(
        id=f"models:/{name}/{version}",
        kind=LineageKind.MODEL_VERSION,
        name=f"{name}/{version}",
        link=version_path(name, version),
    )


def _job_node(job: Job) -> LineageNode:
    return LineageNode(
        id=job.id, kind=LineageKind.JOB, name=f"{job.kind} {job.name}", link=f"/v1/jobs/{job.id}"
    )


def _data_node(fact: DataFact, file_id: str | None) -> LineageNode:
    source = fact.source or f"sha256:{fact.sha256}"
    return LineageNode(
        id=source,
        kind=LineageKind.DATA,
        name=file_id or _address(fact) or fact.role,
        digest=fact.sha256,
        link=file_id and f"/v1/files/{file_id}",
    )


def _address(fact: DataFact) -> str | None:
    """Where rows were read; a data set of the hub is noted as JSON."""
    try:
        described = json.loads(fact.source or "")
    except ValueError:
        return fact.source
    return str(described.get("dataset", fact.source)) if isinstance(described, dict) else None


def _base_model_node(base_model: str, digest: str | None) -> LineageNode:
    try:
        reference = VersionReference.parse(base_model)
    except ValueError:
        reference = None
    link = None
    if reference is not None and reference.version is not None:
        link = version_path(reference.name, reference.version)
    return LineageNode(
        id=base_model, kind=LineageKind.BASE_MODEL, name=base_model, digest=digest, link=link
    )


def _files_by_role(job: Job | None) -> dict[str, str]:
    """The uploaded files that a job's spec names, by what they are to the training."""
    if job is None:
        return {}
    named = file_ids(_SPEC.validate_python(job.spec))
    return {field.removeprefix("data."): file_id for field, file_id in named.items()}
