"""A driver's connection to the Ray cluster that runs it."""

import logging
import os

import ray


def connect(**environment: str) -> None:
    """Connect, and give every process of the job what it needs from the environment.

    Args:
        environment: Further variables; this process gets them, too.
    """
    # Without it, Ray refuses what the job was submitted with, even the same value once more.
    os.environ.update(environment, RAY_OVERRIDE_JOB_RUNTIME_ENV="1")
    variables = {
        # Ray's own helper actors look the cluster up by this variable, which only drivers have;
        # without it they fail where two clusters share a machine.
        "RAY_ADDRESS": os.environ["RAY_ADDRESS"],
        # How often the end of a worker group is looked for; the default adds seconds to each job.
        "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.5",
        **environment,
    }
    ray.init(runtime_env={"env_vars": variables}, logging_level=logging.WARNING)
