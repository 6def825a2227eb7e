"""Hyperbolicity of prompts in models of every family, with an adapter and without."""

import numpy as np
import pytest
import torch
from peft import PeftModel, get_peft_model
from scipy.stats import ttest_rel

from hyplora import HypLoraConfig
from hyplora.analysis.hyperbolicity import Sampling, measure_hyperbolicity
from hyplora.analysis.prompt_hyperbolicity import (
    embedding_points,
    final_hidden_points,
    measure_prompts,
)
from hyplora.analysis.token_norms import embedding_norms
from hyplora.errors import AnalysisError
from tests.unit.hyplora.analysis.families import FAMILIES, VOCABULARY, make_tiny

PROMPTS = [[1, *range(5, 5 + length)] for length in (6, 9, 14)]
TARGETS = r".*\.(q_proj|down_proj)"


def adapted(family: str, **settings: object) -> PeftModel:
    targets = r".*language_model\." + TARGETS if family == "gemma3-with-vision" else TARGETS
    config = HypLoraConfig(r=4, alpha=64, target_modules=targets, init_weights=False, **settings)
    return get_peft_model(make_tiny(family), config).eval()


@pytest.mark.parametrize("is_tied", [False, True], ids=["untied", "tied"])
@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_can_be_measured_without_an_adapter(family: str, is_tied: bool) -> None:
    model = make_tiny(family, is_tied=is_tied)
    found = measure_prompts(model, PROMPTS)
    assert found.embeddings.num_clouds == found.hidden.num_clouds == 3
    assert found.hidden.mean_relative is not None
    assert 0 < found.hidden.mean_relative < 1
    assert found.hidden_without_adapter is found.adapter_effect is None
    norms = embedding_norms(model)
    assert norms.shape == (VOCABULARY,)
    points = embedding_points(model, [5, 5, 7])
    torch.testing.assert_close(points.norm(dim=-1), norms[[5, 7]])


@pytest.mark.parametrize("family", FAMILIES)
def test_an_adapter_changes_hidden_states_and_leaves_embeddings(family: str) -> None:
    model = adapted(family)
    found = measure_prompts(model, PROMPTS)
    base = measure_prompts(make_tiny(family), PROMPTS)
    assert found.embeddings == base.embeddings
    assert found.hidden != base.hidden
    assert found.hidden_without_adapter == base.hidden


def test_the_difference_is_that_of_pairs() -> None:
    found = measure_prompts(adapted("llama"), PROMPTS, Sampling(num_base_points=3))
    effect = found.adapter_effect
    assert effect is not None
    assert found.hidden_without_adapter is not None
    first = [each.relative for each in found.hidden.clouds if each]
    second = [each.relative for each in found.hidden_without_adapter.clouds if each]
    test = ttest_rel(first, second).confidence_interval(0.95)
    assert effect.num_prompts == 3
    assert effect.mean == pytest.approx(np.mean(first) - np.mean(second))
    assert (effect.low, effect.high) == pytest.approx((test.low, test.high))


def test_an_untrained_adapter_changes_nothing() -> None:
    config = HypLoraConfig(r=4, target_modules=TARGETS)
    found = measure_prompts(get_peft_model(make_tiny("llama"), config).eval(), PROMPTS)
    assert found.adapter_effect is not None
    assert found.adapter_effect.mean == found.adapter_effect.low == found.adapter_effect.high == 0


def test_prompts_too_short_are_skipped_and_counted() -> None:
    found = measure_prompts(adapted("llama"), [[], [4], [4, 5, 6]])
    assert (found.embeddings.num_clouds, found.embeddings.num_skipped) == (1, 2)
    assert found.adapter_effect is not None
    assert (found.adapter_effect.num_prompts, found.adapter_effect.low) == (1, None)


def test_hidden_points_are_what_the_head_reads() -> None:
    model = make_tiny("llama")
    points = final_hidden_points(model, PROMPTS[0])
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([PROMPTS[0]])).logits[0]
    torch.testing.assert_close(model.lm_head(points), logits)
    assert measure_hyperbolicity(points).num_points == len(PROMPTS[0])


def test_a_model_in_training_mode_is_refused() -> None:
    with pytest.raises(AnalysisError, match="training mode"):
        measure_prompts(make_tiny("llama").train(), PROMPTS)
