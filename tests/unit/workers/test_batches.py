from collections import Counter

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from workers.batches import (
    IGNORED_LABEL,
    PAD_MULTIPLE,
    micro_batches,
    num_steps,
    rows_of_step,
    share_of_rank,
)
from workers.data import Example
from workers.specs import TrainingSpec

PAD_ID = 0


def example(num_prompt_tokens: int, num_answer_tokens: int, first: int = 1) -> Example:
    tokens = torch.arange(first, first + num_prompt_tokens + num_answer_tokens, dtype=torch.int32)
    return Example(tokens, num_prompt_tokens)


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


@given(examples, st.integers(1, 6))
def test_the_logits_kept_are_those_that_predict_the_answer(
    rows: list[Example], micro_batch_size: int
) -> None:
    batches = list(micro_batches(rows, micro_batch_size, PAD_ID))
    assert [len(batch.input_ids) for batch in batches[:-1]] == [micro_batch_size] * (
        len(batches) - 1
    )
    remaining = iter(rows)
    for batch in batches:
        assert batch.input_ids.shape[1] % PAD_MULTIPLE == 0
        for tokens, positions, labels in zip(
            batch.input_ids, batch.answer_positions, batch.labels, strict=True
        ):
            row = next(remaining)
            counts = labels != IGNORED_LABEL
            assert tokens[: row.num_tokens].tolist() == row.input_ids.tolist()
            assert (tokens[row.num_tokens :] == PAD_ID).all()
            assert tokens[positions + 1][counts].tolist() == labels[counts].tolist()
            assert labels[counts].tolist() == row.input_ids[row.num_prompt_tokens :].tolist()


def test_a_batch_without_labels_counts_nothing() -> None:
    (batch,) = micro_batches([example(3, 2)], 1, PAD_ID)
    assert (batch.without_labels().labels == IGNORED_LABEL).all()
    assert torch.equal(batch.without_labels().input_ids, batch.input_ids)
