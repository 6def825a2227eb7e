"""The frame of every driver: read the ticket, run the job, record how it ended.

A failure that the user can act on is recorded in the MLflow run, where the control plane reads it.
Anything else ends the process with a traceback in its log, and the control plane tries again.
"""

import logging
import os
from collections.abc import Callable

from mlflow import MlflowClient
from mlflow.entities import RunStatus

from jobs.errors import JobError, StoppedEarlyError
from jobs.tickets import TICKET_VARIABLE, JobTicket, RunTag
from workers.errors import WorkerError
from workers.reach import confine

logger = logging.getLogger(__name__)


def run_driver(run: Callable[[JobTicket], None]) -> int:
    """Run one job to its recorded end.

    Args:
        run: Carries the job out; raises `JobError` or `WorkerError` for failures to be recorded,
            and `StoppedEarlyError` where another attempt goes on.

    Returns:
        The process's exit code: 0 if the job succeeded or stopped as it was asked to, 1 if its
        failure was recorded.
    """
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    ticket = JobTicket.model_validate_json(os.environ[TICKET_VARIABLE])
    confine(ticket.reach)
    client = MlflowClient(tracking_uri=ticket.tracking_uri)
    logger.info("job %s, attempt %d, MLflow run %s", ticket.job_id, ticket.attempt, ticket.run_id)
    try:
        run(ticket)
    except StoppedEarlyError as stopped:
        logger.info("%s", stopped)
        return 0
    except (JobError, WorkerError) as error:
        logger.error("%s: %s", error.code, error)
        client.set_tag(ticket.run_id, RunTag.FAILURE_CODE, error.code)
        client.set_tag(ticket.run_id, RunTag.FAILURE_MESSAGE, str(error))
        client.set_terminated(ticket.run_id, RunStatus.to_string(RunStatus.FAILED))
        return 1
    client.set_terminated(ticket.run_id, RunStatus.to_string(RunStatus.FINISHED))
    logger.info("job %s succeeded", ticket.job_id)
    return 0
