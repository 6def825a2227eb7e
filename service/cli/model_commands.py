"""Commands about registered models: list, show, promote, delete."""

from typing import Annotated

import typer
from rich.console import RenderableType

from service.cli.adapters import ModelReference
from service.cli.console import note, open_console, result
from service.cli.endpoint import Url, connect
from service.cli.errors import CliError
from service.cli.job_commands import AsJson
from service.cli.model_views import model_view, models_table, version_view

models = typer.Typer(name="models", help="Registered models: list, show, promote, delete.")

Name = Annotated[str, typer.Argument(metavar="NAME", help="Registered model.", show_default=False)]
Version = Annotated[
    str,
    typer.Argument(metavar="NAME/VERSION", help="Version, such as sums/3.", show_default=False),
]
Target = Annotated[
    str,
    typer.Argument(
        metavar="NAME[@ALIAS|/VERSION]",
        help="Registered model, or a version of it, such as sums@champion or sums/3.",
        show_default=False,
    ),
]


@models.callback(invoke_without_command=True)
def list_models(
    context: typer.Context,
    limit: Annotated[int, typer.Option(min=1, max=200, help="Most models to list.")] = 50,
    as_json: AsJson = False,
    url: Url = None,
) -> None:
    """List registered models by name; with a command: show, promote, demote or delete one."""
    if context.invoked_subcommand is not None:
        return
    with connect(url) as client:
        page = client.models.list(limit=limit)
    if as_json:
        result(page.model_dump_json(indent=2))
        return
    if page.data:
        open_console().print(models_table(page.data))
    else:
        note("no models")
    if page.has_more:
        note("there are more models: raise --limit to see them")


@models.command("show")
def show_model(target: Target, as_json: AsJson = False, url: Url = None) -> None:
    """Show a registered model with its newest versions, or everything about one version."""
    view: RenderableType
    with connect(url) as client:
        if "@" in target or "/" in target:
            reference = ModelReference.parse(target)
            version = client.models.get_version(reference.name, reference.version)
            document, view = version.model_dump_json(indent=2), version_view(version)
        else:
            model, page = client.models.get(target), client.models.list_versions(target)
            document, view = model.model_dump_json(indent=2), model_view(model, page.data)
    if as_json:
        result(document)
    else:
        open_console().print(view, soft_wrap=True)


@models.command("promote")
def promote_version(
    version: Version,
    alias: Annotated[str, typer.Argument(help="Alias, such as champion.", show_default=False)],
    only_from: Annotated[
        int | None,
        typer.Option(
            min=1, help="Only if the alias points at this version now.", show_default=False
        ),
    ] = None,
    url: Url = None,
) -> None:
    """Point an alias at a version, wherever it pointed before."""
    reference, number = _numbered(version)
    with connect(url) as client:
        client.models.promote(reference.name, alias, number, only_from=only_from)
    result(f"{reference.name}@{alias} is version {number}")


@models.command("demote")
def remove_alias(
    target: Annotated[
        str,
        typer.Argument(
            metavar="NAME@ALIAS", help="Alias, such as sums@champion.", show_default=False
        ),
    ],
    url: Url = None,
) -> None:
    """Remove an alias; the version that it pointed at stays."""
    reference = ModelReference.parse(target)
    if not reference.selector.startswith("@"):
        raise CliError(f"{target!r} is no alias: give NAME@ALIAS, such as sums@champion")
    with connect(url) as client:
        client.models.remove_alias(reference.name, reference.selector[1:])
    result(f"{reference} removed")


@models.command("delete")
def delete_model(
    target: Annotated[
        str,
        typer.Argument(
            metavar="NAME[/VERSION]",
            help="Version, such as sums/3, or a registered model with all its versions.",
            show_default=False,
        ),
    ],
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    url: Url = None,
) -> None:
    """Delete a version or a whole model that no alias and no job needs; this cannot be undone."""
    is_whole = "/" not in target and "@" not in target
    reference, number = (None, 0) if is_whole else _numbered(target)
    if not yes:
        what = f"{target} with all its versions" if is_whole else target
        typer.confirm(f"delete {what} for good?", abort=True, err=True)
    with connect(url) as client:
        if reference is None:
            client.models.delete(target)
        else:
            client.models.delete_version(reference.name, number)
    result(f"{target} deleted")


def _numbered(text: str) -> tuple[ModelReference, int]:
    """A reference by number, since what an alias points at can change meanwhile."""
    reference = ModelReference.parse(text)
    if not reference.selector.startswith("/"):
        raise CliError(f"{text!r} may change what it points at: give NAME/VERSION, such as sums/3")
    return reference, int(reference.version)
