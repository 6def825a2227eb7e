from collections import Counter

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from workers.batches import (
    IGNORED_LABEL,
    Batching,
    micro_batches,
    num_steps,
    rows_of_step,
    share_of_rank,
)
from workers.data import Example
from workers.specs import TrainingSpec


def example(num_prompt_tokens: int, num_answer_tokens: int, line: int = 0) -> Example:
    tokens = torch.arange(1, 1 + num_prompt_tokens + num_answer_tokens, dtype=torch.int32)
    return Example(tokens, torch.arange(len(tokens)) >= num_prompt_tokens, line)


examples = st.lists(
    st.builds(example, st.integers(1, 30), st.integers(1, 9)), min_size=1, max_size=20
)


@given(
    num_rows=st.integers(1, 40),
    batch_size=st.integers(1, 60),
    num_epochs=st.integers(1, 5),
    seed=st.integers(0, 9),
)
def test_every_row_is_trained_on_once_an_epoch(
    num_rows: int, batch_size: int, num_epochs: int, seed: int
) -> None:
    training = TrainingSpec(batch_size=batch_size, num_epochs=num_epochs, seed=seed)
    steps = [
        rows_of_step(num_rows, training, step) for step in range(num_steps(num_rows, training))
    ]
    seen = Counter(row for rows in steps for row in rows)
    assert seen == dict.fromkeys(range(num_rows), num_epochs)
    assert all(len(rows) == batch_size for rows in steps[:-1])
    assert steps[-1]


def test_epochs_and_seeds_have_orders_of_their_own() -> None:
    orders = [
        rows_of_step(50, TrainingSpec(batch_size=50, seed=seed), step)
        for seed in (0, 1)
        for step in (0, 1)
    ]
    assert len({tuple(order) for order in orders}) == 4


@pytest.mark.parametrize(
    ("max_steps", "expected"), [(None, 5), (3, 3), (9, 5)], ids=["none", "fewer", "more"]
)
def test_max_steps_ends_a_training_early_and_never_late(
    max_steps: int | None, expected: int
) -> None:
    training = TrainingSpec(batch_size=4, num_epochs=2, max_steps=max_steps)
    assert num_steps(9, training) == expected


@given(examples, st.integers(1, 4))
def test_ranks_share_the_rows_of_a_step_evenly(rows: list[Example], world_size: int) -> None:
    shares = [share_of_rank(rows, rank, world_size) for rank in range(world_size)]
    assert Counter(id(row) for share in shares for row in share) == Counter(map(id, rows))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1
    for share in shares:
        lengths = [row.num_tokens for row in share]
        assert lengths == sorted(lengths, reverse=True)


@given(examples, st.integers(1, 80))
def test_the_logits_kept_are_those_that_predict_the_answers(
    rows: list[Example], max_tokens: int
) -> None:
    for number, row in enumerate(rows):
        rows[number] = Example(row.input_ids, row.is_answer, line=number)
    lines = []
    for batch in micro_batches(rows, max_tokens):
        packed = [rows[line] for line in batch.lines]
        assert batch.row_lengths == [row.num_tokens for row in packed]
        assert batch.input_ids[0].tolist() == [
            token for row in packed for token in row.input_ids.tolist()
        ]
        assert batch.position_ids[0].tolist() == [
            position for row in packed for position in range(row.num_tokens)
        ]
        answers = [token for row in packed for token in row.input_ids[row.is_answer].tolist()]
        assert batch.labels.tolist() == answers
        assert batch.input_ids[0, batch.answer_positions[0] + 1].tolist() == answers
        lines += batch.lines
    assert sorted(lines) == list(range(len(rows)))


@given(examples, st.integers(1, 80))
def test_no_forward_pass_holds_more_tokens_than_allowed_but_for_a_row_alone(
    rows: list[Example], max_tokens: int
) -> None:
    batches = list(micro_batches(rows, max_tokens))
    for batch in batches:
        assert len(batch.row_lengths) == 1 or sum(batch.row_lengths) <= max_tokens
    half_full = [batch for batch in batches if 2 * sum(batch.row_lengths) <= max_tokens]
    assert len(half_full) <= 1


def test_a_batch_without_labels_counts_nothing() -> None:
    (batch,) = micro_batches([example(3, 2)], 8)
    assert (batch.without_labels().labels == IGNORED_LABEL).all()
    assert torch.equal(batch.without_labels().input_ids, batch.input_ids)


@given(rows=examples, world_size=st.integers(1, 4), max_tokens=st.integers(1, 80))
def test_sharded_ranks_make_equally_many_forward_passes_of_the_same_rows(
    rows: list[Example], world_size: int, max_tokens: int
) -> None:
    for number, row in enumerate(rows):
        rows[number] = Example(row.input_ids, row.is_answer, line=number)
    for of in ("of_step", "of_evaluation"):
        shares = []
        for rank in range(world_size):
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr("workers.batches.rank", lambda rank=rank: rank)
                patch.setattr("workers.batches.world_size", lambda: world_size)
                shares.append(getattr(Batching(max_tokens, is_sharded=True), of)(rows))
        assert len({len(batches) for batches in shares}) == 1
        counted = [
            line
            for batches in shares
            for batch in batches
            if (batch.labels != IGNORED_LABEL).any()
            for line in batch.lines
        ]
        assert sorted(counted) == list(range(len(rows)))
