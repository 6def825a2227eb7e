"""Prompts answered together have the tokens of transformers' generation of each alone."""

from collections.abc import Sequence

import pytest
import torch
from peft import LoraConfig, PeftConfig, PeftModel, get_peft_model
from transformers import LlamaConfig, PreTrainedModel

from hyplora import HypLoraConfig
from tests.tiny_architectures import CONFIGS, SIZES, VOCABULARY, mamba, model_of
from workers.decoding import (
    Answer,
    BatchLimits,
    Prompt,
    can_decode_together,
    decode,
    decode_one_by_one,
)
from workers.errors import AdapterUnusableError
from workers.row_cache import HEADROOM

STOPS = (1, 2, 3, 4, 5)
BASE = "__base__"
SMALL = BatchLimits(max_rows=4, max_cached_tokens=200, max_pass_tokens=30)


def prompts_of(*lengths: int, adapter_name: str | None = None, shared: int = 9) -> list[Prompt]:
    """Prompts with one beginning, and answers of unlike bounds."""
    generator = torch.Generator().manual_seed(1)
    beginning = torch.randint(4, VOCABULARY, (shared,), generator=generator).tolist()
    return [
        Prompt(
            beginning + torch.randint(4, VOCABULARY, (length,), generator=generator).tolist(),
            3 + 5 * (number % 4),
            adapter_name,
        )
        for number, length in enumerate(lengths)
    ]


def alone(model: PreTrainedModel | PeftModel, prompt: Prompt) -> Answer:
    """What transformers generates."""
    input_ids = torch.tensor(prompt.input_ids)[None]
    output = model.generate(
        input_ids=input_ids,
        attention_mask=torch.ones_like(input_ids),
        do_sample=False,
        max_new_tokens=prompt.max_new_tokens,
        eos_token_id=list(STOPS),
        pad_token_id=0,
    )
    tokens = tuple(output[0, input_ids.shape[1] :].tolist())
    return Answer(0, tokens, "end" if tokens[-1] in STOPS else "length")


def together(
    model: PreTrainedModel | PeftModel, prompts: Sequence[Prompt], limits: BatchLimits = SMALL
) -> list[Answer]:
    answers = list(decode(model, prompts, STOPS, limits))
    assert sorted(answer.index for answer in answers) == list(range(len(prompts)))
    return sorted(answers, key=lambda answer: answer.index)


def assert_same(found: Sequence[Answer], expected: Sequence[Answer]) -> None:
    assert [(each.tokens, each.stop_reason) for each in found] == [
        (each.tokens, each.stop_reason) for each in expected
    ]


@pytest.mark.parametrize("shared", [0, 9])
@pytest.mark.parametrize("name", CONFIGS)
def test_rows_that_come_and_go_are_answered_as_if_each_were_alone(name: str, shared: int) -> None:
    model = model_of(CONFIGS[name]())
    assert can_decode_together(model)
    prompts = prompts_of(3, 17, 1, 9, 9, 25, 2, 12, 5, 1, 30, 4, shared=shared)
    expected = [alone(model, prompt) for prompt in prompts]
    assert len({len(each.tokens) for each in expected}) > 2  # rows end at different times
    assert_same(together(model, prompts), expected)


@pytest.mark.parametrize(
    "limits",
    [
        BatchLimits(max_rows=1),
        BatchLimits(max_cached_tokens=1),
        BatchLimits(max_pass_tokens=1),
        BatchLimits(max_rows=3, max_cached_tokens=90),
        BatchLimits(),
    ],
)
def test_what_fits_in_memory_decides_nothing_about_the_answers(limits: BatchLimits) -> None:
    model = model_of(LlamaConfig(**SIZES))
    prompts = prompts_of(3, 17, 1, 9, 25, 2, 12)
    assert_same(together(model, prompts, limits), [alone(model, each) for each in prompts])


def test_an_answer_is_given_before_longer_ones_end() -> None:
    model = model_of(LlamaConfig(**SIZES))
    long, short = Prompt([5] * 20, 30), Prompt([6, 7], 1)
    first = next(iter(decode(model, [long, short], (), SMALL)))
    assert first.index == 1


def test_a_long_answer_outgrows_the_columns_that_were_made_for_it() -> None:
    model = model_of(LlamaConfig(**SIZES))
    prompts = [Prompt([5, 6, 7], 2 * HEADROOM + 3), Prompt([9, 8], 2 * HEADROOM + 9)]
    found = sorted(decode(model, prompts, (), SMALL), key=lambda answer: answer.index)
    assert [len(each.tokens) for each in found] == [2 * HEADROOM + 3, 2 * HEADROOM + 9]
    for prompt, answer in zip(prompts, found, strict=True):
        output = model.generate(
            input_ids=torch.tensor(prompt.input_ids)[None],
            do_sample=False,
            max_new_tokens=prompt.max_new_tokens,
            pad_token_id=0,
        )
        assert tuple(output[0, len(prompt.input_ids) :].tolist()) == answer.tokens


def test_equal_prompts_and_single_tokens_are_answered() -> None:
    model = model_of(LlamaConfig(**SIZES))
    for prompts in ([Prompt([5], 3)] * 3, [Prompt([5] * 12, 3)] * 2, [Prompt([7], 4)], []):
        assert_same(together(model, prompts), [alone(model, each) for each in prompts])


def test_other_models_are_answered_one_by_one() -> None:
    model = model_of(mamba())
    assert not can_decode_together(model)
    prompts = prompts_of(3, 9, 1)
    found = sorted(decode_one_by_one(model, prompts, STOPS), key=lambda answer: answer.index)
    assert_same(found, [alone(model, each) for each in prompts])


def adapted(**configs: PeftConfig) -> PeftModel:
    model = model_of(LlamaConfig(**SIZES))
    torch.manual_seed(1)
    names = iter(configs.items())
    name, config = next(names)
    adapted = get_peft_model(model, config, adapter_name=name)
    for name, config in names:
        adapted.add_adapter(name, config)
    return adapted.eval()


def hyplora(**settings: object) -> HypLoraConfig:
    return HypLoraConfig(init_weights=False, target_modules="all-linear", **settings)


def lora(**settings: object) -> LoraConfig:
    return LoraConfig(init_lora_weights=False, target_modules="all-linear", **settings)


def alone_with(model: PeftModel, prompt: Prompt) -> Answer:
    if prompt.adapter_name == BASE:
        with model.disable_adapter():
            return alone(model, prompt)
    model.set_adapter(prompt.adapter_name)
    return alone(model, prompt)


@pytest.mark.parametrize(
    "configs",
    [
        {"first": hyplora(r=4), "second": hyplora(r=2, curvature=0.5)},
        {"first": lora(r=4), "second": lora(r=2)},
        {"first": lora(r=4, use_dora=True), "second": lora(r=2)},
    ],
    ids=["hyplora", "lora", "dora"],
)
def test_adapters_over_one_base_answer_as_each_does_alone(configs: dict[str, PeftConfig]) -> None:
    model = adapted(**configs)
    questions = prompts_of(3, 17, 1, 9, 25, 2)
    prompts = [
        Prompt(each.input_ids, each.max_new_tokens, name)
        for each in questions
        for name in ("second", BASE, "first")
    ]
    expected = [alone_with(model, prompt) for prompt in prompts]
    assert len({each.tokens for each in expected}) > len(questions)  # the adapters differ
    assert_same(together(model, prompts), expected)


def test_a_model_is_left_as_it_was() -> None:
    model = adapted(first=hyplora(r=4), second=hyplora(r=2))
    model.set_adapter("first")
    trained = {name for name, each in model.named_parameters() if each.requires_grad}
    prompts = prompts_of(3, 9)
    expected = [alone(model, each) for each in prompts]
    for names in (("second", BASE), (BASE, BASE)):
        together(
            model,
            [Prompt(each.input_ids, 2, name) for each, name in zip(prompts, names, strict=True)],
        )
        assert model.active_adapters == ["first"]
        assert {name for name, each in model.named_parameters() if each.requires_grad} == trained
        assert_same([alone(model, each) for each in prompts], expected)


def test_an_adapter_that_is_not_there_is_refused_by_name() -> None:
    model = adapted(first=hyplora(r=4))
    with pytest.raises(AdapterUnusableError, match="no adapter third; it has __base__, first"):
        together(model, prompts_of(3, adapter_name="third"))
