from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from transformers import PreTrainedTokenizerBase

from tests.tiny_model import write_addition_rows
from workers.base_model import load_tokenizer


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Sums are added up in one order, so that results can be compared bit for bit."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HYPLORA_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="session")
def tokenizer(tiny_model_dir: Path) -> PreTrainedTokenizerBase:
    return load_tokenizer(str(tiny_model_dir))


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    return write_addition_rows(tmp_path / "rows.jsonl", num_rows=32)
