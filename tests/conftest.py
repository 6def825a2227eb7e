import gc
from pathlib import Path

import pytest

from tests.tiny_model import write_tiny_model


@pytest.fixture(scope="session")
def tiny_model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A complete tiny base model; read it only."""
    return write_tiny_model(tmp_path_factory.mktemp("tiny-model"))


def pytest_collection_finish() -> None:
    """Spare every later garbage collection what the imports made: a million objects and more."""
    gc.collect()
    gc.freeze()
