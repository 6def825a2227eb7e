import copy

import pytest
from transformers import PreTrainedTokenizerBase

from workers.chat_templates import CHAT_TEMPLATES, set_chat_template
from workers.data import end_of_turn_id, render_prompt, tokenize
from workers.errors import BaseModelUnusableError
from workers.rows import ChatRow, CompletionRow, InstructionRow

ROW = InstructionRow(instruction="Add.", input="2 + 2", output="4")
CHAT = ChatRow.model_validate(
    {
        "messages": [
            {"role": "user", "content": "a"},
            {"role": "assistant", "content": "b"},
            {"role": "user", "content": "c"},
            {"role": "assistant", "content": "d"},
        ]
    }
)
TOKENS = {
    "chatml": ["<|im_start|>", "<|im_end|>"],
    "llama3": ["<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"],
    "gemma": ["<bos>", "<start_of_turn>", "<end_of_turn>"],
}
PROMPTS = {
    "plain": "<|start|>### Instruction:\nAdd.\n\n2 + 2\n\n### Response:\n",
    "chatml": "<|im_start|>user\nAdd.\n\n2 + 2<|im_end|>\n<|im_start|>assistant\n",
    "llama3": (
        "<|begin_of_text|><|start_header_id|>user<|end_header_id|>\n\nAdd.\n\n2 + 2<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\n"
    ),
    "gemma": "<bos><start_of_turn>user\nAdd.\n\n2 + 2<end_of_turn>\n<start_of_turn>model\n",
    "raw": "Add.\n\n2 + 2",
}
ENDS = {
    "plain": "<|end|>",
    "chatml": "<|im_end|>",
    "llama3": "<|eot_id|>",
    "gemma": "<end_of_turn>",
    "raw": "<|end|>",
}


@pytest.fixture
def base_tokenizer(tokenizer: PreTrainedTokenizerBase) -> PreTrainedTokenizerBase:
    """A tokenizer that knows every family's tokens and brings no template."""
    own = copy.deepcopy(tokenizer)
    own.add_special_tokens(
        {"additional_special_tokens": [token for tokens in TOKENS.values() for token in tokens]}
    )
    own.chat_template = None
    return own


@pytest.mark.parametrize("name", CHAT_TEMPLATES)
def test_a_named_template_lays_a_conversation_out_as_its_family_does(
    name: str, base_tokenizer: PreTrainedTokenizerBase
) -> None:
    set_chat_template(base_tokenizer, name)
    assert render_prompt(base_tokenizer, ROW) == PROMPTS[name]
    assert base_tokenizer.convert_ids_to_tokens(end_of_turn_id(base_tokenizer)) == ENDS[name]


@pytest.mark.parametrize("name", CHAT_TEMPLATES)
def test_a_named_template_keeps_the_past_so_that_a_conversation_is_one_example(
    name: str, base_tokenizer: PreTrainedTokenizerBase
) -> None:
    set_chat_template(base_tokenizer, name)
    (example,) = tokenize([(1, CHAT)], base_tokenizer)
    learned = base_tokenizer.decode(example.input_ids[example.is_answer])
    assert learned.replace(" ", "") == f"b{ENDS[name]}d{ENDS[name]}"


def test_a_tokenizer_without_template_gets_the_plain_one_and_keeps_its_own_otherwise(
    base_tokenizer: PreTrainedTokenizerBase,
) -> None:
    set_chat_template(base_tokenizer, None)
    assert base_tokenizer.chat_template == CHAT_TEMPLATES["plain"]
    base_tokenizer.chat_template = "{{ messages[0].content }}"
    set_chat_template(base_tokenizer, None)
    assert base_tokenizer.chat_template == "{{ messages[0].content }}"


def test_the_raw_template_adds_nothing_but_the_end(base_tokenizer: PreTrainedTokenizerBase) -> None:
    set_chat_template(base_tokenizer, "raw")
    row = CompletionRow(prompt="2 + 2 =", completion=" 4")
    (example,) = tokenize([(1, row)], base_tokenizer)
    assert base_tokenizer.decode(example.input_ids) == "2 + 2 = 4<|end|>"


@pytest.mark.parametrize("name", TOKENS)
def test_a_template_whose_tokens_the_tokenizer_lacks_is_refused(
    name: str, tokenizer: PreTrainedTokenizerBase
) -> None:
    with pytest.raises(BaseModelUnusableError, match=r"needs .*choose plain or raw"):
        set_chat_template(copy.deepcopy(tokenizer), name)


def test_gemma_is_told_that_it_knows_no_system_turn(
    base_tokenizer: PreTrainedTokenizerBase,
) -> None:
    set_chat_template(base_tokenizer, "gemma")
    row = ChatRow.model_validate(
        {"messages": [{"role": "system", "content": "a"}, {"role": "assistant", "content": "b"}]}
    )
    with pytest.raises(BaseModelUnusableError, match="Gemma knows no system turn"):
        tokenize([(1, row)], base_tokenizer)
