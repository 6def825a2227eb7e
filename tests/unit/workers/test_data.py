import copy
from pathlib import Path

import pytest
from transformers import PreTrainedTokenizerBase

from workers.data import (
    Example,
    LossOn,
    encode,
    end_of_turn_id,
    render_prompt,
    tokenize,
)
from workers.errors import BaseModelUnusableError
from workers.rows import ChatRow, InstructionRow
from workers.sources import read_rows

ROW = InstructionRow(instruction="Add.", input="2 + 2", output="4")


@pytest.fixture
def own_tokenizer(tokenizer: PreTrainedTokenizerBase) -> PreTrainedTokenizerBase:
    """A copy that a test may change."""
    return copy.deepcopy(tokenizer)


def test_a_prompt_is_rendered_by_the_models_own_template(
    tokenizer: PreTrainedTokenizerBase,
) -> None:
    assert render_prompt(tokenizer, ROW) == (
        "<|start|>user\nAdd.\n\n2 + 2<|end|>\n<|start|>assistant\n"
    )


def test_shots_are_shown_as_earlier_turns(tokenizer: PreTrainedTokenizerBase) -> None:
    shot = InstructionRow(instruction="1 + 1", output="2")
    assert render_prompt(tokenizer, ROW, [shot]) == (
        "<|start|>user\n1 + 1<|end|>\n<|start|>assistant\n2<|end|>\n"
        "<|start|>user\nAdd.\n\n2 + 2<|end|>\n<|start|>assistant\n"
    )


def test_a_turn_ends_with_the_templates_token_where_it_is_not_the_end_of_sequence(
    own_tokenizer: PreTrainedTokenizerBase,
) -> None:
    own_tokenizer.add_special_tokens({"additional_special_tokens": ["<|turn|>"]})
    own_tokenizer.chat_template = own_tokenizer.chat_template.replace("<|end|>", "<|turn|>")
    assert end_of_turn_id(own_tokenizer) == own_tokenizer.convert_tokens_to_ids("<|turn|>")


def test_a_template_that_ends_turns_with_plain_text_falls_back_to_end_of_sequence(
    own_tokenizer: PreTrainedTokenizerBase,
) -> None:
    own_tokenizer.chat_template = own_tokenizer.chat_template.replace("<|end|>", " DONE")
    assert end_of_turn_id(own_tokenizer) == own_tokenizer.eos_token_id


def test_a_template_that_refuses_a_user_turn_is_an_unusable_model(
    own_tokenizer: PreTrainedTokenizerBase,
) -> None:
    own_tokenizer.chat_template = "{{ raise_exception('system turn expected') }}"
    with pytest.raises(BaseModelUnusableError, match="system turn expected"):
        render_prompt(own_tokenizer, ROW)


def test_only_the_answer_and_the_end_of_its_turn_are_learned(
    tokenizer: PreTrainedTokenizerBase,
) -> None:
    (example,) = tokenize([(7, ROW)], tokenizer)
    assert tokenizer.decode(example.input_ids[~example.is_answer]) == render_prompt(tokenizer, ROW)
    assert tokenizer.decode(example.input_ids[example.is_answer]) == "4<|end|>"
    assert (example.num_answer_tokens, example.line) == (2, 7)


def test_training_and_generation_read_the_same_prompt_tokens(
    tokenizer: PreTrainedTokenizerBase, rows: Path
) -> None:
    for example in tokenize(read_rows(rows.as_uri(), name="rows"), tokenizer):
        prompt = example.input_ids[~example.is_answer].tolist()
        assert encode(tokenizer, [tokenizer.decode(prompt)]) == [prompt]


CHAT = ChatRow.model_validate(
    {
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "1 + 1?"},
            {"role": "assistant", "content": "2"},
            {"role": "user", "content": "And 2 + 2?"},
            {"role": "assistant", "content": "5", "weight": 0},
            {"role": "user", "content": "No."},
            {"role": "assistant", "content": "4"},
        ]
    }
)


def learned_text(tokenizer: PreTrainedTokenizerBase, example: Example) -> list[str]:
    """The runs of learned tokens, as text."""
    pieces: list[list[int]] = []
    before = False
    for token, learned in zip(example.input_ids.tolist(), example.is_answer.tolist(), strict=True):
        if learned and not before:
            pieces.append([])
        if learned:
            pieces[-1].append(token)
        before = learned
    return [tokenizer.decode(piece) for piece in pieces]


@pytest.mark.parametrize(
    ("loss_on", "learned"),
    [("answers", ["2<|end|>", "4<|end|>"]), ("last_answer", ["4<|end|>"])],
)
def test_every_answer_of_a_conversation_is_learned_with_its_end_unless_weighted_0(
    loss_on: LossOn, learned: list[str], tokenizer: PreTrainedTokenizerBase
) -> None:
    (example,) = tokenize([(1, CHAT)], tokenizer, loss_on)
    assert learned_text(tokenizer, example) == learned
    messages = [{"role": turn.role, "content": turn.content} for turn in CHAT.turns]
    whole = tokenizer.apply_chat_template(messages, tokenize=False).removesuffix("\n")
    assert tokenizer.decode(example.input_ids) == whole


def test_every_token_but_the_first_is_learned_if_asked_for(
    tokenizer: PreTrainedTokenizerBase,
) -> None:
    (example,) = tokenize([(1, CHAT)], tokenizer, "all")
    assert example.is_answer.tolist() == [False] + [True] * (example.num_tokens - 1)


def test_a_template_that_rewrites_the_past_gives_each_answer_the_past_it_is_generated_with(
    own_tokenizer: PreTrainedTokenizerBase,
) -> None:
    own_tokenizer.chat_template = (
        "{% for message in messages %}{% if loop.last or message['role'] != 'assistant' %}"
        "{{ '<|start|>' + message['content'] + '<|end|>' }}{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|start|>' }}{% endif %}"
    )
    first, second = tokenize([(3, CHAT)], own_tokenizer)
    assert learned_text(own_tokenizer, first) == ["2<|end|>"]
    assert learned_text(own_tokenizer, second) == ["4<|end|>"]
    assert "2<|end|>" not in own_tokenizer.decode(second.input_ids)
    assert first.line == second.line == 3


def test_a_conversation_that_the_template_refuses_is_named_by_its_line(
    own_tokenizer: PreTrainedTokenizerBase,
) -> None:
    own_tokenizer.chat_template = (
        "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system turn') }}{% endif %}"
        "{{ messages[0]['content'] }}"
    )
    with pytest.raises(BaseModelUnusableError, match=r"line 5: .*no system turn"):
        tokenize([(4, ROW), (5, CHAT)], own_tokenizer)
