from collections.abc import Callable

import pytest
import torch
from peft import PeftModel, get_peft_model
from torch import Tensor
from transformers import LlamaForCausalLM, T5Config, T5ForConditionalGeneration

from hyplora import HypLoraConfig
from hyplora.errors import AdapterNamesError

ROWS = ["second", "__base__", "first"]


@pytest.fixture
def model(make_llama: Callable[[], LlamaForCausalLM]) -> PeftModel:
    """A model with two adapters, the second of which leaves half of the layers alone."""
    torch.manual_seed(0)
    model = get_peft_model(
        make_llama(), HypLoraConfig(r=4, init_weights=False), adapter_name="first"
    )
    model.add_adapter(
        "second", HypLoraConfig(r=2, init_weights=False, target_modules=["q_proj", "up_proj"])
    )
    return model.eval()


def logits_with(model: PeftModel, tokens: Tensor, adapter_name: str) -> Tensor:
    if adapter_name == "__base__":
        with model.disable_adapter():
            return model(input_ids=tokens).logits
    model.set_adapter(adapter_name)
    return model(input_ids=tokens).logits


def test_each_row_gets_its_own_adapter(model: PeftModel, tokens: Tensor) -> None:
    with torch.no_grad():
        mixed = model(input_ids=tokens, adapter_names=ROWS).logits
        for row, name in enumerate(ROWS):
            alone = logits_with(model, tokens[row : row + 1], name)
            torch.testing.assert_close(mixed[row : row + 1], alone)
        model.set_adapter("first")
        afterwards = model(input_ids=tokens).logits
        torch.testing.assert_close(afterwards, logits_with(model, tokens, "first"))


@pytest.mark.parametrize("num_beams", [1, 3])
def test_generation_keeps_each_row_to_its_adapter(
    model: PeftModel, tokens: Tensor, num_beams: int
) -> None:
    settings = {
        "max_new_tokens": 4,
        "do_sample": False,
        "num_beams": num_beams,
        "min_new_tokens": 4,
    }
    mixed = model.generate(input_ids=tokens, adapter_names=ROWS, **settings)
    for row, name in enumerate(ROWS):
        names = [name] * len(tokens)
        alone = model.generate(input_ids=tokens, adapter_names=names, **settings)
        assert torch.equal(mixed[row], alone[row])


def test_encoder_of_a_beam_search_gets_one_name_a_row(tokens: Tensor) -> None:
    torch.manual_seed(0)
    config = T5Config(
        vocab_size=61,
        d_model=16,
        d_kv=8,
        d_ff=24,
        num_layers=1,
        num_heads=2,
        decoder_start_token_id=0,
    )
    base = T5ForConditionalGeneration(config)
    model = get_peft_model(base, HypLoraConfig(r=2, init_weights=False), adapter_name="first")
    model.eval()
    settings = {"max_new_tokens": 3, "num_beams": 2}
    mixed = model.generate(input_ids=tokens, adapter_names=["first"] * 3, **settings)
    assert torch.equal(mixed, model.generate(input_ids=tokens, **settings))


def test_unknown_adapter_is_refused_by_name(model: PeftModel, tokens: Tensor) -> None:
    with pytest.raises(
        AdapterNamesError, match="third, but the model's adapters are first, second"
    ):
        model(input_ids=tokens, adapter_names=["first", "third", "first"])


def test_one_name_a_row_is_required(model: PeftModel, tokens: Tensor) -> None:
    with pytest.raises(AdapterNamesError, match="got 2 names for 3 rows"):
        model(input_ids=tokens, adapter_names=["first", "second"])
    assert model(input_ids=tokens).logits.shape[0] == 3  # the refusal leaves nothing behind


def test_mixed_batches_are_for_inference_only(model: PeftModel, tokens: Tensor) -> None:
    model.train()
    with pytest.raises(AdapterNamesError, match="inference only"):
        model(input_ids=tokens, adapter_names=ROWS)
