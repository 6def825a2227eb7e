"""Commands of an operator about API keys; they work on the database, so the first key can be made.

The database is the one of HYPLORA_DATABASE_URL or, without it, that of the stack under
HYPLORA_HOME.
"""

import asyncio
import re
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer
from pydantic import ValidationError
from rich.table import Table

from service.answers import Page
from service.callers import Scope
from service.cli.console import note, open_console, result
from service.cli.errors import CliError
from service.cli.job_commands import AsJson
from service.key_answers import KeyCreate, KeyRead

if TYPE_CHECKING:
    from service.keys import Keys

_Result = TypeVar("_Result")
_DURATION = re.compile(r"(?P<number>\d{1,4})(?P<unit>[hdw])")
_UNITS = {"h": timedelta(hours=1), "d": timedelta(days=1), "w": timedelta(weeks=1)}

keys = typer.Typer(
    name="keys",
    help="API keys: make, list, revoke; on the database itself (HYPLORA_DATABASE_URL).",
    no_args_is_help=True,
)


@keys.command("create")
def create_key(
    name: Annotated[str, typer.Argument(help="What people call it.", show_default=False)],
    project: Annotated[
        str, typer.Option(help="Whose jobs and data sets the key opens.")
    ] = "default",
    scope: Annotated[
        Scope, typer.Option(help="What it may do; submit includes read, admin all.")
    ] = Scope.SUBMIT,
    expires: Annotated[
        str | None,
        typer.Option(
            metavar="TIME",
            help="How long it is valid, such as 12h, 90d or 8w; by default until it is revoked.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Make an API key and print it, this once: nobody can read it again."""
    expires_at = _moment(expires) if expires else None
    try:
        wanted = KeyCreate(name=name, project=project, scopes=(scope,), expires_at=expires_at)
    except ValidationError as error:
        fault = error.errors()[0]
        raise typer.BadParameter(f"{fault['loc'][0]}: {fault['msg']}") from error

    async def create(stored: "Keys") -> tuple[str, str]:
        record, text = await stored.create(
            wanted.name, wanted.project, wanted.scopes, wanted.expires_at
        )
        return record.id, text

    key_id, text = _with_keys(create)
    result(text)
    note(f"keep it safe, it is not shown again; revoke it with: hyplora keys revoke {key_id}")


@keys.command("list")
def list_keys(
    limit: Annotated[int, typer.Option(min=1, max=1000, help="Most keys to list.")] = 100,
    as_json: AsJson = False,
) -> None:
    """List API keys, newest first, with those that are revoked or have expired."""

    async def read(stored: "Keys") -> Page[KeyRead]:
        found, has_more = await stored.page(limit)
        data = [KeyRead.model_validate(key, from_attributes=True) for key in found]
        return Page(data=data, has_more=has_more)

    page = _with_keys(read)
    if as_json:
        result(page.model_dump_json(indent=2))
        return
    if page.data:
        open_console().print(_table(page.data))
    else:
        note("no keys")
    if page.has_more:
        note("there are older keys: raise --limit to see more")


@keys.command("revoke")
def revoke_key(
    key_id: Annotated[
        str, typer.Argument(metavar="KEY", help="Id of the key.", show_default=False)
    ],
) -> None:
    """End an API key for good; a service refuses it within two seconds."""

    async def revoke(stored: "Keys") -> None:
        from service.errors import KeyNotFoundError

        try:
            await stored.revoke(key_id)
        except KeyNotFoundError as error:
            raise CliError(f"there is no key {key_id!r}: see `hyplora keys list`") from error

    _with_keys(revoke)
    result(f"{key_id} revoked")


def _with_keys(work: Callable[["Keys"], Awaitable[_Result]]) -> _Result:
    """Do something with the keys of the database that the environment names."""
    # Imported here, since they would slow every other command down.
    from sqlalchemy.exc import SQLAlchemyError

    from service.database import Database
    from service.errors import DatabaseUnavailableError
    from service.keys import Keys
    from service.settings import ServiceSettings, describe_faults

    try:
        url = ServiceSettings().database_url
    except ValidationError as error:
        raise CliError(describe_faults(error)) from error

    async def connected() -> _Result:
        database = Database(url)
        try:
            await database.upgrade()
            return await work(Keys(database))
        finally:
            await database.close()

    try:
        return asyncio.run(connected())
    except (DatabaseUnavailableError, SQLAlchemyError, OSError) as error:
        cause = str(error).partition("\n")[0]
        raise CliError(
            f"the database does not answer, see HYPLORA_DATABASE_URL: {cause}"
        ) from error


def _moment(duration: str) -> datetime:
    match = _DURATION.fullmatch(duration)
    if match is None:
        raise typer.BadParameter(f"{duration!r} is no time: give one such as 12h, 90d or 8w")
    return datetime.now(UTC) + int(match["number"]) * _UNITS[match["unit"]]


def _table(found: list[KeyRead]) -> Table:
    table = Table("key", "name", "project", "scopes", "state", "created", "last used", box=None)
    for key in found:
        table.add_row(
            key.id,
            key.name,
            key.project,
            " ".join(key.scopes),
            _state(key),
            _local(key.created_at),
            _local(key.last_used_at) if key.last_used_at else "never",
        )
    return table


def _state(key: KeyRead) -> str:
    if key.revoked_at is not None:
        return "revoked"
    if key.expires_at is None:
        return "valid"
    is_over = key.expires_at <= datetime.now(UTC)
    return f"{'expired' if is_over else 'until'} {_local(key.expires_at)}"


def _local(moment: datetime) -> str:
    return f"{moment.astimezone():%Y-%m-%d %H:%M}"
