"""`torch.compile` takes HypLoRA whole, without graph breaks, and computes what eager does."""

from collections.abc import Iterator

import pytest
import torch
from peft import get_peft_model
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForCausalLM

from hyplora import HypLoraConfig
from hyplora.tuner.layer import HypLoraLinear

# torch's own compiler makes the context that it then warns about.
pytestmark = pytest.mark.filterwarnings(
    "ignore:.*Function.* should not be instantiated:DeprecationWarning"
)

PROJECTIONS = [
    {"projection": "lorentz"},
    {"projection": "lorentz", "learn_curvature": True, "curvature": 0.5},
    {"projection": "stereographic"},
    {"projection": "stereographic", "learn_curvature": True, "curvature": 0.5},
]


@pytest.fixture(autouse=True)
def fresh_compiler() -> Iterator[None]:
    """Forget what other tests compiled, and leave nothing behind."""
    torch.compiler.reset()
    yield
    torch.compiler.reset()


def config_with(settings: dict[str, object]) -> HypLoraConfig:
    return HypLoraConfig(r=4, alpha=8.0, init_weights=False, task_type="CAUSAL_LM", **settings)


def adapter_gradients(model: nn.Module, loss: Tensor) -> dict[str, Tensor]:
    adapter = {name: p for name, p in model.named_parameters() if p.requires_grad}
    assert adapter
    return dict(zip(adapter, torch.autograd.grad(loss, list(adapter.values())), strict=True))


@pytest.mark.parametrize("settings", PROJECTIONS, ids=str)
def test_compiled_layer_has_the_outputs_and_gradients_of_the_eager_one(
    settings: dict[str, object],
) -> None:
    torch.manual_seed(0)
    layer = HypLoraLinear(nn.Linear(24, 18).requires_grad_(False), "default", config_with(settings))
    compiled = torch.compile(layer, backend="aot_eager", fullgraph=True)
    x = torch.randn(2, 5, 24)

    def input_and_adapter_gradients(module: nn.Module) -> dict[str, Tensor]:
        leaf = x.clone().requires_grad_()
        loss = module(leaf).square().sum()
        (gradient,) = torch.autograd.grad(loss, leaf, retain_graph=True)
        return {"x": gradient, **adapter_gradients(layer, loss)}

    torch.testing.assert_close(
        input_and_adapter_gradients(compiled), input_and_adapter_gradients(layer)
    )
    layer.eval()
    with torch.no_grad():
        torch.testing.assert_close(compiled(x), layer(x))


@pytest.mark.parametrize("settings", PROJECTIONS[:3], ids=str)
def test_compiled_model_has_the_logits_and_gradients_of_the_eager_one(
    settings: dict[str, object], tokens: Tensor
) -> None:
    torch.manual_seed(0)
    base = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=61,
            hidden_size=32,
            intermediate_size=48,
            num_hidden_layers=1,
            num_attention_heads=4,
            num_key_value_heads=2,
            initializer_range=0.2,
        )
    )
    model = get_peft_model(base, config_with(settings)).train()
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(
        adapter_gradients(model, compiled(input_ids=tokens, labels=tokens).loss),
        adapter_gradients(model, model(input_ids=tokens, labels=tokens).loss),
    )
    model.eval()
    with torch.no_grad():
        torch.testing.assert_close(
            compiled(input_ids=tokens).logits, model(input_ids=tokens).logits
        )
