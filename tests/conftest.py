import gc
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import pytest
from xdist.remote import Producer
from xdist.scheduler.loadfile import LoadFileScheduling

from tests.postgres import PostgresServer
from tests.tiny_model import write_tiny_model

OWN_STACK = ("test_demo", "test_fault_matrix", "test_object_store")
"""Files of tests/end_to_end that start a stack of their own."""


@pytest.fixture(scope="session")
def tiny_model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A complete tiny base model; read it only."""
    return write_tiny_model(tmp_path_factory.mktemp("tiny-model"))


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """One PostgreSQL server for all tests of this process; each takes a database of its own."""
    with PostgresServer() as server:
        yield server


class FileScheduling(LoadFileScheduling):
    """Gives each process whole files, and one of them all files that share the embedded stack."""

    def _split_scope(self, nodeid: str) -> str:
        file = PurePosixPath(nodeid.partition("::")[0])
        shares_stack = file.parent.name == "end_to_end" and file.stem not in OWN_STACK
        return "end_to_end" if shares_stack else str(file)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> FileScheduling:
    """With `-n 2`, tests that wait for Ray do not hold up those that compute."""
    return FileScheduling(config, log)


def pytest_collection_finish() -> None:
    """Spare every later garbage collection what the imports made: a million objects and more."""
    gc.collect()
    gc.freeze()
