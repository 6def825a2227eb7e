import copy
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerBase

from workers.data import (
    encode,
    end_of_turn_id,
    load_examples,
    messages_for,
    render_prompt,
    split_held_out,
)
from workers.errors import BaseModelUnusableError, DataInvalidError, RowTooLongError
from workers.rows import InstructionRow

ROW = InstructionRow(instruction="Add.", input="2 + 2", output="4")


@pytest.fixture
def own_tokenizer(tokenizer: PreTrainedTokenizerBase) -> PreTrainedTokenizerBase:
    """A copy that a test may change."""
    return copy.deepcopy(tokenizer)


def test_instruction_and_input_make_one_user_turn() -> None:
    assert messages_for(ROW) == [{"role": "user", "content": "Add.\n\n2 + 2"}]
    alone = InstructionRow(instruction="Add.", output="4")
    assert messages_for(alone) == [{"role": "user", "content": "Add."}]


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


def test_a_tokenizer_without_template_gets_the_plain_layout(
    own_tokenizer: PreTrainedTokenizerBase,
) -> None:
    own_tokenizer.chat_template = None
    assert render_prompt(own_tokenizer, ROW) == (
        "<|start|>### Instruction:\nAdd.\n\n2 + 2\n\n### Response:\n"
    )
    assert end_of_turn_id(own_tokenizer) == own_tokenizer.eos_token_id


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
    tokenizer: PreTrainedTokenizerBase, tmp_path: Path
) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(ROW.model_dump_json())
    (example,) = load_examples(path, tokenizer, None)
    prompt = example.input_ids[: example.num_prompt_tokens]
    answer = example.input_ids[example.num_prompt_tokens :]
    assert tokenizer.decode(prompt) == render_prompt(tokenizer, ROW)
    assert tokenizer.decode(answer) == "4<|end|>"
    assert example.num_answer_tokens == len(answer) == 2


def test_training_and_generation_read_the_same_prompt_tokens(
    tokenizer: PreTrainedTokenizerBase, rows: Path
) -> None:
    for example in load_examples(rows, tokenizer, None):
        prompt = example.input_ids[: example.num_prompt_tokens].tolist()
        assert encode(tokenizer, [tokenizer.decode(prompt)]) == [prompt]


def test_rows_that_are_too_long_are_counted_and_the_first_is_named(
    tokenizer: PreTrainedTokenizerBase, rows: Path
) -> None:
    long = json.dumps({"instruction": "1" * 100, "output": "2"})
    rows.write_text(rows.read_text() + f"\n{long}\n{long}\n")
    with pytest.raises(
        RowTooLongError, match=r"rows\.jsonl, line 34 has 121 tokens .* 80 .*2 of 34 rows"
    ):
        load_examples(rows, tokenizer, 80)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("", "line 1: the file has no row"),
        ('{"instruction": "a"}', "line 1, output: is missing"),
        ("a,b,c", "line 1: is no JSON"),
    ],
)
def test_a_malformed_data_set_names_file_and_line(
    content: str, problem: str, tokenizer: PreTrainedTokenizerBase, tmp_path: Path
) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(content)
    with pytest.raises(DataInvalidError, match=rf"rows\.jsonl, {problem}"):
        load_examples(path, tokenizer, None)


def test_a_missing_data_set_is_said_to_be_missing(
    tokenizer: PreTrainedTokenizerBase, tmp_path: Path
) -> None:
    with pytest.raises(DataInvalidError, match=r"cannot be read .*upload it again"):
        load_examples(tmp_path / "rows.jsonl", tokenizer, None)


@given(num_held_out=st.integers(0, 31), seed=st.integers(0, 2**32))
def test_held_out_rows_are_drawn_by_seed_and_never_trained_on(num_held_out: int, seed: int) -> None:
    examples = [object() for _ in range(32)]
    trained, held_out = split_held_out(examples, num_held_out, seed)  # type: ignore[arg-type]
    assert len(held_out) == num_held_out
    assert sorted(map(id, trained + held_out)) == sorted(map(id, examples))
    assert split_held_out(examples, num_held_out, seed) == (trained, held_out)  # type: ignore[arg-type]
