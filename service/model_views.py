"""Registered models as the API answers them, with links to where else they can be looked at."""

from urllib.parse import quote

from jobs.tickets import RunTag
from service.model_answers import (
    EvaluationRead,
    ModelLinksRead,
    ModelRead,
    VersionLinksRead,
    VersionRead,
)
from service.models import OwnedModel, OwnedVersion
from service.settings import ServiceSettings
from service.version_facts import evaluations, number, scores


def model_path(name: str) -> str:
    """Path of a registered model."""
    return f"/v1/models/{quote(name, safe='')}"


def version_path(name: str, version: int) -> str:
    """Path of a version."""
    return f"{model_path(name)}/versions/{version}"


class ModelViews:
    """Turns models and versions into answers; knows where browsers find MLflow."""

    def __init__(self, settings: ServiceSettings) -> None:
        self._mlflow_url = settings.mlflow_ui_url

    def model(self, owned: OwnedModel) -> ModelRead:
        """A registered model."""
        path = model_path(owned.name)
        return ModelRead(
            name=owned.name,
            project=owned.project,
            aliases=dict(sorted(owned.model.aliases.items())),
            newest_version=owned.model.newest_version,
            created_at=owned.model.created_at,
            links=ModelLinksRead(
                self_=path,
                versions=f"{path}/versions",
                mlflow_model=f"{self._mlflow_url}/#/models/{quote(owned.name, safe='')}",
            ),
        )

    def version(self, owned: OwnedVersion) -> VersionRead:
        """A version."""
        version, tags = owned.version, owned.version.tags
        rank = number(tags, "rank")
        return VersionRead(
            name=version.name,
            version=version.version,
            aliases=owned.aliases,
            uri=f"models:/{version.name}/{version.version}",
            base_model=tags.get("base_model"),
            base_model_digest=tags.get("base_model_digest"),
            method=tags.get("method"),
            rank=None if rank is None else int(rank),
            curvature=number(tags, "curvature"),
            job_id=tags.get(RunTag.JOB_ID),
            trial_id=tags.get(RunTag.TRIAL_ID),
            run_id=version.run_id,
            scores=scores(tags),
            evaluations=[
                EvaluationRead.model_validate(each, from_attributes=True)
                for each in evaluations(tags)
            ],
            created_at=version.created_at,
            links=self._links(owned),
        )

    def _links(self, owned: OwnedVersion) -> VersionLinksRead:
        name, number = owned.version.name, owned.version.version
        path, job_id = version_path(name, number), owned.version.tags.get(RunTag.JOB_ID)
        page = f"{self._mlflow_url}/#/models/{quote(name, safe='')}/versions/{number}"
        return VersionLinksRead(
            self_=path,
            model=model_path(name),
            lineage=f"{path}/lineage",
            download=f"{path}/download",
            job=job_id and f"/v1/jobs/{job_id}",
            mlflow_version=page,
        )
