"""Commands about the trials of a search."""

from typing import Annotated

import typer

from jobs.tickets import TrialState
from service.cli.console import note, open_console, result
from service.cli.endpoint import Url, connect
from service.cli.job_commands import AsJson, JobId
from service.cli.trial_views import search_text, trials_table


def trials(
    job_id: JobId,
    sort: Annotated[
        str,
        typer.Option(
            metavar="KEY",
            help="number, state, started_at, seconds, steps, objective, a searched field such as "
            "adapter.curvature, or a metric such as eval/loss; --sort=-KEY: the largest first.",
        ),
    ] = "number",
    state: Annotated[
        TrialState | None, typer.Option(help="Only trials in this state.", show_default=False)
    ] = None,
    as_json: AsJson = False,
    url: Url = None,
) -> None:
    """List the trials of a search as they stand; ★ marks the best.

    A dim value is the last one of a trial whose objective is not measured yet.
    """
    with connect(url) as client:
        page = client.list_trials(job_id, sort=sort, state=state)
        if as_json:
            result(page.model_dump_json(indent=2))
            return
        job = client.get_job(job_id)
    if page.data:
        open_console().print(trials_table(job, page.data))
    else:
        note("no trials")
    if job.search:
        note(search_text(job.search))
