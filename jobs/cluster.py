"""A driver's connection to the Ray cluster that runs it."""

import logging
import os

import ray

from jobs.node_wait import await_nodes
from jobs.tickets import JobTicket
from workers.reach import REACH_VARIABLE


def connect(ticket: JobTicket, **environment: str) -> None:
    """Connect, give every process of the job its environment, and wait for nodes to run it on.

    Args:
        ticket: Of the job.
        environment: Further variables; this process gets them, too.

    Raises:
        ResourcesUnavailableError: If no nodes came that are large enough.
    """
    # Without it, Ray refuses what the job was submitted with, even the same value once more.
    os.environ.update(environment, RAY_OVERRIDE_JOB_RUNTIME_ENV="1")
    variables = {
        # Ray's own helper actors look the cluster up by this variable, which only drivers have;
        # without it they fail where two clusters share a machine.
        "RAY_ADDRESS": os.environ["RAY_ADDRESS"],
        # How often the end of a worker group is looked for; the default adds seconds to each job.
        "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.5",
        REACH_VARIABLE: ticket.reach.model_dump_json(),
        **environment,
    }
    ray.init(runtime_env={"env_vars": variables}, logging_level=logging.WARNING)
    await_nodes(ticket.spec.resources, ticket.start_deadline_s)
