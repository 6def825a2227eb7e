"""HypLoRA on base layers that bitsandbytes quantized, on the CPU."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from peft import PeftModel, get_peft_model, prepare_model_for_kbit_training
from torch import Tensor, nn
from transformers import BitsAndBytesConfig, LlamaConfig, LlamaForCausalLM

from hyplora import HypLoraConfig
from hyplora.tuner.layer import HypLoraLinear

bitsandbytes = pytest.importorskip("bitsandbytes")

BITS_8 = BitsAndBytesConfig(load_in_8bit=True)
BITS_4 = BitsAndBytesConfig(
    load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.float32
)
LAYERS = {"8-bit": bitsandbytes.nn.Linear8bitLt, "4-bit": bitsandbytes.nn.Linear4bit}
MakeQuantized = Callable[[], LlamaForCausalLM]


@pytest.fixture(params=[pytest.param(BITS_8, id="8-bit"), pytest.param(BITS_4, id="4-bit")])
def make_quantized(
    request: pytest.FixtureRequest,
    tokens: Tensor,
    tmp_path: Path,
) -> MakeQuantized:
    """Load the same tiny Llama quantized each time; skip where bitsandbytes cannot run it here."""
    torch.manual_seed(0)
    LlamaForCausalLM(
        LlamaConfig(
            vocab_size=61,
            hidden_size=64,  # bitsandbytes packs blocks of 64 numbers
            intermediate_size=128,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=4,
            initializer_range=0.2,
        )
    ).save_pretrained(tmp_path / "base")

    def make() -> LlamaForCausalLM:
        return LlamaForCausalLM.from_pretrained(
            tmp_path / "base", quantization_config=request.param, device_map={"": "cpu"}
        ).eval()

    # Without an adapter: what fails here is not ours.
    try:
        base = make()
        embedded = base.get_input_embeddings()(tokens).detach().requires_grad_()
        base(inputs_embeds=embedded).logits.sum().backward()
        logits(base, tokens)
    except (ImportError, RuntimeError, NotImplementedError, ValueError) as error:
        pytest.skip(f"bitsandbytes {bitsandbytes.__version__} does not run on this CPU: {error}")
    return make


def adapted(base: nn.Module) -> PeftModel:
    torch.manual_seed(0)
    config = HypLoraConfig(
        r=4, alpha=8.0, init_weights=False, learn_curvature=True, task_type="CAUSAL_LM"
    )
    return get_peft_model(base, config)


def logits(model: nn.Module, tokens: Tensor) -> Tensor:
    with torch.no_grad():
        return model.eval()(input_ids=tokens).logits


def train_a_step(model: nn.Module, tokens: Tensor) -> Tensor:
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    loss = model.train()(input_ids=tokens, labels=tokens).loss
    loss.backward()
    optimizer.step()
    return loss


def test_every_quantized_layer_is_adapted_in_float32(
    make_quantized: MakeQuantized, tokens: Tensor
) -> None:
    model = adapted(make_quantized())
    layers = [module for module in model.modules() if isinstance(module, HypLoraLinear)]
    quantized = tuple(LAYERS.values())
    assert len(layers) == 14
    assert all(isinstance(layer.base_layer, quantized) for layer in layers)
    assert all(not layer.base_layer.weight.is_floating_point() for layer in layers)
    assert {p.dtype for p in model.parameters() if p.requires_grad} == {torch.float32}
    assert logits(model, tokens).isfinite().all()


def test_update_on_a_quantized_layer_is_that_on_the_same_layer_in_full_precision(
    make_quantized: MakeQuantized,
) -> None:
    layer = adapted(make_quantized()).base_model.model.model.layers[0].self_attn.q_proj
    x = torch.randn(2, 5, 64, generator=torch.Generator().manual_seed(1))
    update = layer(x) - layer.base_layer(x)
    expected = layer.add_update(torch.zeros_like(update), x, "default")
    torch.testing.assert_close(update, expected, rtol=1e-4, atol=1e-5)


# PEFT 0.21 prepares a model of transformers 5.23 by a name that is to go in transformers 6.
@pytest.mark.filterwarnings("ignore:`gradient_checkpointing_enable` is dep:FutureWarning")
def test_training_step_moves_all_of_the_adapter_and_no_quantized_weight(
    make_quantized: MakeQuantized, tokens: Tensor
) -> None:
    base = prepare_model_for_kbit_training(
        make_quantized(), gradient_checkpointing_kwargs={"use_reentrant": False}
    )
    model = adapted(base)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    assert train_a_step(model, tokens).isfinite()
    moved = {name for name, p in model.named_parameters() if not p.equal(before[name])}
    assert moved == {name for name in before if "hyplora_" in name}
    assert len(moved) == 3 * 7 * 2  # A, B and K of seven layers in each of two blocks


def test_saved_adapter_comes_back_on_a_quantized_base_with_identical_logits(
    make_quantized: MakeQuantized, tokens: Tensor, tmp_path: Path
) -> None:
    model = adapted(make_quantized())
    train_a_step(model, tokens)
    model.save_pretrained(tmp_path / "adapter")
    loaded = PeftModel.from_pretrained(make_quantized(), tmp_path / "adapter")
    assert torch.equal(logits(loaded, tokens), logits(model, tokens))


def test_disabling_the_adapter_gives_the_quantized_base_model(
    make_quantized: MakeQuantized, tokens: Tensor
) -> None:
    model, base = adapted(make_quantized()), logits(make_quantized(), tokens)
    assert not torch.equal(logits(model, tokens), base)
    with model.disable_adapter():
        assert torch.equal(logits(model, tokens), base)
    assert torch.equal(logits(model.unload(), tokens), base)
