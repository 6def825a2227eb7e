from pathlib import Path

import pytest
import torch
from transformers import PreTrainedTokenizerBase

from workers import token_cache
from workers.cache import cache_folder, remove_unused
from workers.data import Example, tokenize
from workers.rows import InstructionRow
from workers.token_cache import tokenize_cached

ROWS = [(1, InstructionRow(instruction="1 + 1", output="2")),
        (4, InstructionRow(instruction="2 + 2", output="4"))]  # fmt: skip


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Grows by one with every real tokenization."""
    made: list[int] = []

    def count(rows: list[object], *rest: object) -> list[Example]:
        made.append(len(rows))
        return tokenize(rows, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(token_cache, "tokenize", count)
    return made


def test_the_same_rows_are_tokenized_once(
    tokenizer: PreTrainedTokenizerBase, calls: list[int]
) -> None:
    first = tokenize_cached(ROWS, tokenizer, "answers")
    again = tokenize_cached(ROWS, tokenizer, "answers")
    assert calls == [2]
    for one, other in zip(first, again, strict=True):
        assert torch.equal(one.input_ids, other.input_ids)
        assert torch.equal(one.is_answer, other.is_answer)
        assert one.line == other.line


def test_other_rows_settings_or_templates_are_tokenized_anew(
    tokenizer: PreTrainedTokenizerBase, calls: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    tokenize_cached(ROWS, tokenizer, "answers")
    tokenize_cached(ROWS[:1], tokenizer, "answers")
    tokenize_cached([(2, ROWS[0][1]), ROWS[1]], tokenizer, "answers")
    tokenize_cached(ROWS, tokenizer, "all")
    monkeypatch.setattr(tokenizer, "chat_template", tokenizer.chat_template + " ")
    tokenize_cached(ROWS, tokenizer, "answers")
    assert len(calls) == 5


def test_a_damaged_entry_is_made_again(
    tokenizer: PreTrainedTokenizerBase, calls: list[int]
) -> None:
    tokenize_cached(ROWS, tokenizer, "answers")
    (entry,) = cache_folder("tokens").iterdir()
    entry.write_bytes(entry.read_bytes()[:-3])
    tokenize_cached(ROWS, tokenizer, "answers")
    tokenize_cached(ROWS, tokenizer, "answers")
    assert len(calls) == 2


def test_a_cache_that_cannot_be_written_costs_nothing_but_time(
    tokenizer: PreTrainedTokenizerBase,
    calls: list[int],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "a-file").touch()
    monkeypatch.setenv("HYPLORA_CACHE", str(tmp_path / "a-file"))
    for _ in range(2):
        assert len(tokenize_cached(ROWS, tokenizer, "answers")) == 2
    assert len(calls) == 2


def test_entries_that_nobody_reads_are_removed_after_a_month(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    old.touch()
    now = old.stat().st_mtime
    monkeypatch.setattr("workers.cache.time.time", lambda: now + 31 * 24 * 3600)
    new.touch()
    import os

    os.utime(new, (now + 30 * 24 * 3600,) * 2)
    remove_unused(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["new"]
