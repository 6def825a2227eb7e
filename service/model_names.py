"""Whose the registered models are: MLflow has one space of names for all projects.

A name belongs to the project of the first job that would register under it, from the job's
submission on and for good, since others may pull by it. Names that no job has claimed and that
MLflow knows all the same are the default project's.
"""

from collections.abc import Collection, Iterator, Mapping

from sqlalchemy import select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncSession

from jobs.model_references import VersionReference, model_uris, written_models
from jobs.specs import JobSpec
from service.boundaries import Registry
from service.callers import DEFAULT_PROJECT, Caller, visible_project
from service.database import Database
from service.errors import FieldError, ModelNameTakenError, ModelNotFoundError, SpecInvalidError
from service.tables import ModelName, utc_now


async def owners_of(session: AsyncSession, names: Collection[str]) -> Mapping[str, str]:
    """The projects of those names that were claimed."""
    query = select(ModelName).where(ModelName.name.in_(names))
    return {row.name: row.project for row in await session.scalars(query)}


async def all_owners(session: AsyncSession) -> Mapping[str, str]:
    """The projects of all names that were claimed."""
    return {row.name: row.project for row in await session.scalars(select(ModelName))}


def is_visible(owner: str | None, caller: Caller | None) -> bool:
    """Whether a model exists for a caller.

    Args:
        owner: Who has claimed its name; None for nobody.
        caller: Who asks; None for the service itself.
    """
    return visible_project(caller) in {None, owner or DEFAULT_PROJECT}


async def require_models(session: AsyncSession, spec: JobSpec, caller: Caller | None) -> None:
    """Refuse a spec that reads a model of another project, as if it were not there.

    Raises:
        ModelNotFoundError: If it does.
        SpecInvalidError: If a reference cannot be read.
    """
    named = _references(spec)
    owners = await owners_of(session, {each.name for each in named.values()})
    missing = [
        FieldError(field=field, value=each.name, message="no registered model has this name")
        for field, each in named.items()
        if not is_visible(owners.get(each.name), caller)
    ]
    if missing:
        fields = " and ".join(error.field for error in missing)
        raise ModelNotFoundError(
            f"{fields}: no such registered model; GET /v1/models lists them", missing
        )


async def claim_models(
    session: AsyncSession, spec: JobSpec, project: str, caller: Caller | None
) -> None:
    """Give the names that a job will write to its project, if they are nobody's.

    Raises:
        ModelNameTakenError: If one is another project's.
    """
    written = written_models(spec)
    for name in set(written.values()):
        await _claim(session, name, project)
    await require_writable(session, spec, caller)


async def require_writable(session: AsyncSession, spec: JobSpec, caller: Caller | None) -> None:
    """Refuse a spec that writes to a model of another project.

    Raises:
        ModelNameTakenError: If it does.
    """
    written = written_models(spec)
    owners = await owners_of(session, set(written.values()))
    for field, name in written.items():
        if name in owners and not is_visible(owners[name], caller):
            raise _taken(field, name)


async def require_new_to_mlflow(
    database: Database, registry: Registry, spec: JobSpec, caller: Caller | None
) -> None:
    """Refuse a spec that would claim a model for its project that somebody has made without a job.

    MLflow is asked only about names that nobody has claimed, and never for the default project,
    which has those models.

    Raises:
        MlflowUnavailableError: If it has to be asked and does not answer.
        ModelNameTakenError: If there is such a model.
    """
    if visible_project(caller) in {None, DEFAULT_PROJECT}:
        return
    written = written_models(spec)
    async with database.reading() as session:
        owners = await owners_of(session, set(written.values()))
    for field, name in written.items():
        if name not in owners and await registry.model(name) is not None:
            raise _taken(field, name)


async def _claim(session: AsyncSession, name: str, project: str) -> None:
    """Insert a name unless it is there; waits for others that are just inserting it."""
    dialect = session.get_bind().dialect.name
    claim = (postgresql if dialect == "postgresql" else sqlite).insert(ModelName)
    values = {"name": name, "project": project, "created_at": utc_now()}
    await session.execute(claim.values(values).on_conflict_do_nothing())


def _references(spec: JobSpec) -> dict[str, VersionReference]:
    """The registered models that a spec names, by field.

    Raises:
        SpecInvalidError: If a reference cannot be read.
    """
    return dict(_read_references(spec))


def _read_references(spec: JobSpec) -> Iterator[tuple[str, VersionReference]]:
    for field, uri in model_uris(spec).items():
        try:
            reference = VersionReference.parse(uri)
        except ValueError as error:
            fault = FieldError(field=field, value=uri[:200], message=str(error))
            raise SpecInvalidError(f"{field}: {error}", [fault]) from error
        if reference is not None:
            yield field, reference


def _taken(field: str, name: str) -> ModelNameTakenError:
    return ModelNameTakenError(
        f"{field}: the registered model {name!r} belongs to another project; choose another name",
        [FieldError(field=field, value=name, message="belongs to another project")],
    )
