"""Options scored together have the log-likelihoods of each scored alone."""

from collections.abc import Callable, Sequence

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import LlamaConfig, PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from hyplora import HypLoraConfig
from tests.tiny_architectures import CONFIGS, SIZES, VOCABULARY, mamba, model_of
from workers.errors import DataInvalidError, RowTooLongError
from workers.option_likelihood import (
    OptionQuestion,
    ScoredOption,
    encode_choices,
    log_likelihoods,
)
from workers.tasks.registry import task_named
from workers.tasks.task import Choices, Option


def question_of(
    context: int, *continuations: int, seed: int, adapter_name: str | None = None
) -> OptionQuestion:
    generator = torch.Generator().manual_seed(seed)

    def draw(length: int) -> tuple[int, ...]:
        return tuple(torch.randint(0, VOCABULARY, (length,), generator=generator).tolist())

    shared = draw(context)
    options = tuple(ScoredOption(shared + draw(each), context) for each in continuations)
    return OptionQuestion(options, adapter_name)


QUESTIONS = [
    question_of(6, 3, 1, 5, seed=1),
    question_of(1, 2, 2, seed=2),
    question_of(12, 1, 1, 1, 1, 1, seed=3),
    # Contexts that differ, as in WinoGrande, from some token on and from the first.
    OptionQuestion((ScoredOption((5, 6, 7, 8, 9), 3), ScoredOption((5, 6, 1, 2, 8, 9), 4))),
    OptionQuestion((ScoredOption((5, 8, 9), 1), ScoredOption((4, 2, 8, 9), 2))),
    # One option begins with the other; two are the same.
    OptionQuestion((ScoredOption((5, 8, 9), 1), ScoredOption((5, 8, 9, 3), 1))),
    OptionQuestion((ScoredOption((5, 8, 9), 1), ScoredOption((5, 8, 9), 1))),
]


def naive(model: PreTrainedModel | PeftModel, option: ScoredOption) -> float:
    ids = torch.tensor(option.input_ids)
    with torch.no_grad():
        logits = model(input_ids=ids[None], use_cache=False).logits[0].float()
    found = logits.log_softmax(dim=-1)[range(len(ids) - 1), ids[1:]]
    return float(found[option.num_context - 1 :].sum())


def scores(
    model: PreTrainedModel | PeftModel, questions: Sequence[OptionQuestion], max_tokens: int = 40
) -> list[tuple[float, ...]]:
    found = dict(log_likelihoods(model, questions, max_tokens))
    return [found[index] for index in range(len(questions))]


@pytest.mark.parametrize("config", [*CONFIGS.values(), mamba], ids=[*CONFIGS, "mamba"])
def test_options_together_score_as_each_alone(config: Callable[[], PreTrainedConfig]) -> None:
    model = model_of(config())
    attention = model.config._attn_implementation
    found = scores(model, QUESTIONS)
    assert model.config._attn_implementation == attention
    for question, sums in zip(QUESTIONS, found, strict=True):
        assert sums == pytest.approx([naive(model, each) for each in question.options], rel=1e-4)


def test_long_questions_go_through_the_fused_kernel_with_the_same_scores() -> None:
    model = model_of(LlamaConfig(**SIZES))
    questions = [question_of(300, 4, 30, seed=1), question_of(260, 2, 2, seed=2)]
    for question, sums in zip(questions, scores(model, questions, 1000), strict=True):
        assert sums == pytest.approx([naive(model, each) for each in question.options], rel=1e-4)


@pytest.mark.parametrize("max_tokens", [1, 25, 10_000])
def test_what_goes_into_a_pass_decides_nothing_about_the_scores(max_tokens: int) -> None:
    model = model_of(LlamaConfig(**SIZES))
    expected = [[naive(model, each) for each in question.options] for question in QUESTIONS]
    for sums, wanted in zip(scores(model, QUESTIONS, max_tokens), expected, strict=True):
        assert sums == pytest.approx(wanted, rel=1e-4)


@pytest.mark.parametrize(
    "make",
    [
        lambda r: HypLoraConfig(r=r, init_weights=False, target_modules="all-linear"),
        lambda r: LoraConfig(r=r, init_lora_weights=False, target_modules="all-linear"),
    ],
    ids=["hyplora", "lora"],
)
def test_adapters_over_one_base_score_as_each_does_alone(make: Callable[[int], object]) -> None:
    model = model_of(LlamaConfig(**SIZES))
    torch.manual_seed(1)
    model = get_peft_model(model, make(4), adapter_name="first")
    model.add_adapter("second", make(2))
    model.eval()
    names = ("second", "__base__", "first")
    questions = [
        question_of(6, 3, 1, seed=seed, adapter_name=name) for seed in (1, 2) for name in names
    ]
    found = scores(model, questions)
    assert len(set(found)) == len(questions)
    for question, sums in zip(questions, found, strict=True):
        if question.adapter_name == "__base__":
            with model.disable_adapter():
                expected = [naive(model, each) for each in question.options]
        else:
            model.set_adapter(question.adapter_name)
            expected = [naive(model, each) for each in question.options]
        assert sums == pytest.approx(expected, rel=1e-4)


def test_what_options_have_in_common_is_computed_once() -> None:
    assert question_of(12, 1, 1, 1, seed=3).num_tokens == 12 + 3


def test_white_space_that_ends_a_context_belongs_to_the_continuation(
    tokenizer: PreTrainedTokenizerBase,
) -> None:
    (spaced,) = encode_choices(tokenizer, Choices((Option("So ", "it is", "x"),), 0)).options
    (plain,) = encode_choices(tokenizer, Choices((Option("So", " it is", "x"),), 0)).options
    assert spaced == plain
    assert tokenizer.decode(plain.input_ids[plain.num_context :]) == " it is"


def test_an_empty_context_is_the_first_token(tokenizer: PreTrainedTokenizerBase) -> None:
    (option,) = encode_choices(tokenizer, Choices((Option("", "it", "it"),), 0)).options
    assert option.input_ids[0] == tokenizer.bos_token_id
    assert option.num_context == 1
    assert tokenizer.decode(option.input_ids[1:]) == "it"


def test_an_option_without_a_token_of_its_own_is_refused(
    tokenizer: PreTrainedTokenizerBase,
) -> None:
    with pytest.raises(DataInvalidError, match="option 'nothing' has no token of its own"):
        encode_choices(tokenizer, Choices((Option("So", "", "nothing"),), 0))


def test_a_task_gives_options_that_share_their_question(
    tokenizer: PreTrainedTokenizerBase,
) -> None:
    question = task_named("piqa").question(
        {
            "instruction": "Please choose the correct solution to the question: How to sit?\n\n"
            "Solution1: On a chair. Solution2: On a cup.\n\nAnswer format: solution1/solution2",
            "output": "the correct answer is solution1",
            "answer": "solution1",
        }
    )
    assert question.choices is not None
    encoded = encode_choices(tokenizer, question.choices)
    assert tokenizer.decode(encoded.trunk).startswith("Question: How to sit?\nAnswer: On a c")


def test_an_option_longer_than_the_context_is_refused() -> None:
    model = model_of(LlamaConfig(**(SIZES | {"max_position_embeddings": 8})))
    with pytest.raises(RowTooLongError, match=r"question 1 has an option of 11 tokens.* has 8"):
        scores(model, QUESTIONS)
