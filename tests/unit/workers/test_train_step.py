from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from transformers import PreTrainedTokenizerBase

from workers.adapter import build_adapter
from workers.base_model import load_base_model
from workers.batches import MicroBatch, micro_batches
from workers.data import Example, tokenize
from workers.packing import use_packed_attention
from workers.sources import read_rows
from workers.specs import HypLoraSpec, TrainingSpec
from workers.train_step import (
    AnswerLoss,
    build_optimizer,
    evaluate,
    learning_rate_at,
    train_step,
)


@pytest.fixture
def examples(rows: Path, tokenizer: PreTrainedTokenizerBase) -> list[Example]:
    return tokenize(read_rows(rows.as_uri(), name="rows"), tokenizer)


@pytest.fixture
def answer_loss(tiny_model_dir: Path) -> AnswerLoss:
    torch.manual_seed(0)
    spec = HypLoraSpec(init_weights=False, learn_curvature=True)
    model = load_base_model(str(tiny_model_dir))
    assert use_packed_attention(model)
    return AnswerLoss(build_adapter(model, spec))


def loss_by_transformers(model: nn.Module, examples: Sequence[Example]) -> float:
    """One row at a time, without padding, by the model's own loss."""
    total = 0.0
    for example in examples:
        tokens = example.input_ids[None].long()
        labels = tokens.clone()
        labels[:, ~example.is_answer] = -100
        with torch.no_grad():
            mean = model(input_ids=tokens, labels=labels).loss.item()
        total += mean * example.num_answer_tokens
    return total / sum(example.num_answer_tokens for example in examples)


@given(total_steps=st.integers(1, 300), warmup_steps=st.integers(0, 400), peak=st.floats(1e-6, 1.0))
def test_the_learning_rate_rises_to_its_peak_and_falls_towards_zero(
    total_steps: int, warmup_steps: int, peak: float
) -> None:
    training = TrainingSpec(learning_rate=peak, warmup_steps=warmup_steps)
    rates = [learning_rate_at(step, total_steps, training) for step in range(total_steps)]
    warmup = rates[:warmup_steps]
    decay = rates[warmup_steps:]
    assert warmup == sorted(warmup)
    assert decay == sorted(decay, reverse=True)
    assert all(0 < rate <= peak for rate in rates)
    if warmup_steps < total_steps:
        assert max(rates) == pytest.approx(peak)
        assert rates[-1] == pytest.approx(peak / (total_steps - warmup_steps))


@pytest.mark.parametrize("size", [1, 150, 10_000])
def test_the_loss_is_that_of_transformers_row_by_row(
    size: int, answer_loss: AnswerLoss, examples: list[Example]
) -> None:
    answer_loss.eval()
    expected = loss_by_transformers(answer_loss.model, examples)
    batches = list(micro_batches(examples, size))
    assert evaluate(answer_loss, batches) == pytest.approx(expected, rel=1e-5)


def test_a_model_that_cannot_select_logits_has_the_same_loss(
    answer_loss: AnswerLoss, examples: list[Example]
) -> None:
    batches = list(micro_batches(examples, 300))
    expected = evaluate(answer_loss, batches)
    answer_loss._selects_logits = False
    assert evaluate(answer_loss, batches) == pytest.approx(expected, rel=1e-6)


def test_evaluation_leaves_the_model_in_training_without_gradients(
    answer_loss: AnswerLoss, examples: list[Example]
) -> None:
    evaluate(answer_loss.train(), list(micro_batches(examples, 300)))
    assert answer_loss.training
    assert all(parameter.grad is None for parameter in answer_loss.parameters())


def gradients(
    answer_loss: AnswerLoss, batches: list[MicroBatch], num_answer_tokens: int
) -> dict[str, torch.Tensor]:
    """The unclipped gradients of a step, read off plain gradient descent."""
    trainable = {
        name: parameter
        for name, parameter in answer_loss.named_parameters()
        if parameter.requires_grad
    }
    before = {name: parameter.detach().clone() for name, parameter in trainable.items()}
    optimizer = torch.optim.SGD(trainable.values(), lr=1.0)
    train_step(answer_loss, optimizer, batches, num_answer_tokens, max_grad_norm=1e9)
    return {name: before[name] - parameter.detach() for name, parameter in trainable.items()}


@pytest.mark.parametrize("size", [1, 100, 300])
def test_a_step_has_the_same_gradient_in_any_micro_batches(
    size: int, answer_loss: AnswerLoss, examples: list[Example]
) -> None:
    tokens = sum(example.num_answer_tokens for example in examples)
    initial = {name: value.clone() for name, value in answer_loss.state_dict().items()}
    whole = gradients(answer_loss, list(micro_batches(examples, 10_000)), tokens)
    answer_loss.load_state_dict(initial)
    parts = gradients(answer_loss, list(micro_batches(examples, size)), tokens)
    for name, expected in whole.items():
        torch.testing.assert_close(parts[name], expected, rtol=1e-4, atol=1e-5, msg=name)


def test_a_batch_without_labels_adds_nothing_to_the_gradient(
    answer_loss: AnswerLoss, examples: list[Example]
) -> None:
    (batch,) = micro_batches(examples[:4], 10_000)
    found = gradients(answer_loss, [batch.without_labels()], num_answer_tokens=8)
    assert all((gradient == 0).all() for gradient in found.values())


def test_gradients_are_clipped_to_the_global_norm_that_is_reported(
    answer_loss: AnswerLoss, examples: list[Example]
) -> None:
    batches = list(micro_batches(examples, 10_000))
    tokens = sum(example.num_answer_tokens for example in examples)
    initial = {name: value.clone() for name, value in answer_loss.state_dict().items()}
    unclipped = gradients(answer_loss, batches, tokens)
    norm = torch.cat([gradient.flatten() for gradient in unclipped.values()]).norm()
    answer_loss.load_state_dict(initial)
    trainable = [parameter for parameter in answer_loss.parameters() if parameter.requires_grad]
    before = nn.utils.parameters_to_vector(trainable).clone()
    optimizer = torch.optim.SGD(trainable, lr=1.0)
    result = train_step(answer_loss, optimizer, batches, tokens, max_grad_norm=0.1)
    change = nn.utils.parameters_to_vector(trainable) - before
    assert result.gradient_norm == pytest.approx(norm.item(), rel=1e-4)
    assert change.norm().item() == pytest.approx(0.1, rel=1e-4)


def test_a_step_that_is_not_finite_changes_nothing(
    answer_loss: AnswerLoss, examples: list[Example]
) -> None:
    optimizer = build_optimizer(answer_loss, TrainingSpec())
    trainable = [parameter for parameter in answer_loss.parameters() if parameter.requires_grad]
    with torch.no_grad():
        trainable[0].fill_(torch.inf)
    before = [parameter.clone() for parameter in trainable]
    result = train_step(answer_loss, optimizer, list(micro_batches(examples, 300)), 64, 1.0)
    assert not result.is_finite
    assert all(map(torch.equal, trainable, before))


def test_matrices_decay_and_curvatures_do_not(answer_loss: AnswerLoss) -> None:
    optimizer = build_optimizer(answer_loss, TrainingSpec(weight_decay=0.1))
    decay_by_rank = {
        parameter.ndim: group["weight_decay"]
        for group in optimizer.param_groups
        for parameter in group["params"]
    }
    assert decay_by_rank == {2: 0.1, 1: 0.0}
    held = {parameter for group in optimizer.param_groups for parameter in group["params"]}
    assert held == {parameter for parameter in answer_loss.parameters() if parameter.requires_grad}
