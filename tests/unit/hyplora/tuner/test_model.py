import copy
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from peft import AutoPeftModelForCausalLM, LoraConfig, PeftModel, get_peft_model
from peft.utils.error import NoMatchingPeftModuleError
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import (
    AutoModelForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaForCausalLM,
    MambaConfig,
)

from hyplora import HypLoraConfig, layer_curvatures
from hyplora.errors import ConfigError, NotMergeableError, UnsupportedLayerError
from hyplora.tuner.layer import HypLoraLinear

MakeLlama = Callable[[], LlamaForCausalLM]


def config_with(**settings: object) -> HypLoraConfig:
    """Make a small adapter that changes the model from the start."""
    defaults = {"r": 4, "alpha": 8.0, "init_weights": False, "task_type": "CAUSAL_LM"}
    return HypLoraConfig(**{**defaults, **settings})


def logits(model: nn.Module, tokens: Tensor) -> Tensor:
    with torch.no_grad():
        return model.eval()(input_ids=tokens).logits


def train_a_step(model: nn.Module, tokens: Tensor) -> float:
    model.train()
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    loss = model(input_ids=tokens, labels=tokens).loss
    loss.backward()
    optimizer.step()
    model.eval()
    return loss.item()


def test_new_adapter_leaves_the_logits_of_the_base_model(
    make_llama: MakeLlama, tokens: Tensor
) -> None:
    model = get_peft_model(make_llama(), config_with(init_weights=True))
    assert torch.equal(logits(model, tokens), logits(make_llama(), tokens))


def test_training_step_moves_all_of_the_adapter_and_nothing_else(
    make_llama: MakeLlama, tokens: Tensor
) -> None:
    model = get_peft_model(make_llama(), config_with(learn_curvature=True))
    before = copy.deepcopy(model.state_dict())
    train_a_step(model, tokens)
    moved = {name for name, value in model.state_dict().items() if not value.equal(before[name])}
    adapter = {name for name in before if "hyplora_" in name}
    assert moved == adapter
    assert len(adapter) == 3 * 7 * 2  # A, B and K of seven layers in each of two blocks


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"learn_curvature": True, "curvature": 0.5},
        {"norm_scale": 3.0, "radius_cap": 2.0, "use_rslora": True},
        {"target_modules": ["q_proj", "down_proj"], "layers_to_transform": 0},
        {"target_modules": r".*\.(q|v)_proj", "exclude_modules": ["layers.1.self_attn.q_proj"]},
        {"modules_to_save": ["lm_head"]},
        {"rank_pattern": {"q_proj": 2}, "alpha_pattern": {"layers.0.*": 3.0}},
        {"curvature_pattern": {"down_proj": 0.2}, "learn_curvature": True},
        {"learn_curvature": True, "share_curvature": True, "learn_norm_scale": True},
        {"projection": "stereographic", "rescale_output": False, "curvature": 0.5},
        {"projection": "euclidean", "init_weights": "gaussian"},
    ],
    ids=str,
)
def test_saved_adapter_comes_back_with_identical_logits(
    settings: dict[str, object], make_llama: MakeLlama, tokens: Tensor, tmp_path: Path
) -> None:
    model = get_peft_model(make_llama(), config_with(**settings))
    train_a_step(model, tokens)
    model.save_pretrained(tmp_path)
    loaded = PeftModel.from_pretrained(make_llama(), tmp_path)
    assert torch.equal(logits(loaded, tokens), logits(model, tokens))
    assert layer_curvatures(loaded) == layer_curvatures(model)


def test_patterns_set_rank_alpha_and_curvature_of_single_layers(make_llama: MakeLlama) -> None:
    config = config_with(
        target_modules=["q_proj", "v_proj"],
        rank_pattern={"v_proj": 2},
        alpha_pattern={r"layers\.1\.self_attn\.q_proj": 32.0},
        curvature_pattern={"layers.0.self_attn.v_proj": 0.25},
    )
    model = get_peft_model(make_llama(), config)
    layers = {
        name.removeprefix("base_model.model.model.layers."): module
        for name, module in model.named_modules()
        if isinstance(module, HypLoraLinear)
    }
    assert {name: len(layer.hyplora_A["default"]) for name, layer in layers.items()} == {
        "0.self_attn.q_proj": 4,
        "0.self_attn.v_proj": 2,
        "1.self_attn.q_proj": 4,
        "1.self_attn.v_proj": 2,
    }
    scalings = {
        name: layer.hyplora_settings["default"].scale.scaling for name, layer in layers.items()
    }
    assert scalings == {
        "0.self_attn.q_proj": 2.0,
        "0.self_attn.v_proj": 4.0,
        "1.self_attn.q_proj": 8.0,
        "1.self_attn.v_proj": 4.0,
    }
    curvatures = {name: layer.curvature("default") for name, layer in layers.items()}
    assert curvatures.pop("0.self_attn.v_proj") == 0.25
    assert set(curvatures.values()) == {1.0}


@pytest.mark.filterwarnings("ignore:The following .*_pattern keys did not match")  # PEFT's own
@pytest.mark.parametrize("name", ["rank_pattern", "alpha_pattern", "curvature_pattern"])
def test_pattern_that_matches_no_adapted_layer_is_refused(name: str, make_llama: MakeLlama) -> None:
    with pytest.raises(ConfigError, match=rf"{name}\['q_prj'\] matches none of the adapted"):
        get_peft_model(make_llama(), config_with(**{name: {"q_prj": 2}}))


def test_shared_curvature_is_one_parameter_that_all_layers_follow(
    make_llama: MakeLlama, tokens: Tensor, tmp_path: Path
) -> None:
    model = get_peft_model(
        make_llama(), config_with(learn_curvature=True, share_curvature=True, curvature=0.5)
    )
    names = [name for name, _ in model.named_parameters() if "log_curvature" in name]
    assert len(names) == 1
    train_a_step(model, tokens)
    curvatures = layer_curvatures(model)
    assert len(curvatures) == 14
    (learned,) = set(curvatures.values())
    assert learned != pytest.approx(0.5, rel=1e-4)
    model.save_pretrained(tmp_path)
    loaded = PeftModel.from_pretrained(make_llama(), tmp_path, low_cpu_mem_usage=True)
    assert layer_curvatures(loaded) == curvatures
    twin = copy.deepcopy(model)
    with torch.no_grad():
        dict(twin.named_parameters())[names[0]].fill_(0.0)
    assert set(layer_curvatures(twin).values()) == {1.0}
    assert layer_curvatures(model) == curvatures


def test_hugging_face_loads_base_model_and_adapter_in_one_call(
    make_llama: MakeLlama, tokens: Tensor, tmp_path: Path
) -> None:
    make_llama().save_pretrained(tmp_path / "base")
    base = AutoModelForCausalLM.from_pretrained(tmp_path / "base")
    model = get_peft_model(base, config_with(learn_curvature=True))
    model.save_pretrained(tmp_path / "adapter")
    loaded = AutoPeftModelForCausalLM.from_pretrained(tmp_path / "adapter")
    assert torch.equal(logits(loaded, tokens), logits(model, tokens))


def test_dora_of_peft_works_beside_it(make_llama: MakeLlama, tokens: Tensor) -> None:
    dora = get_peft_model(make_llama(), LoraConfig(r=4, init_lora_weights=False, use_dora=True))
    before = logits(dora, tokens)
    ours = get_peft_model(make_llama(), config_with())
    assert not torch.equal(logits(ours, tokens), logits(make_llama(), tokens))
    assert torch.equal(logits(dora, tokens), before)


def test_generation_with_a_cache_is_that_without_one(make_llama: MakeLlama, tokens: Tensor) -> None:
    model = get_peft_model(make_llama(), config_with(curvature=0.3)).eval()
    settings = {"max_new_tokens": 8, "min_new_tokens": 8, "do_sample": False}
    cached = model.generate(input_ids=tokens, **settings)
    assert torch.equal(cached, model.generate(input_ids=tokens, use_cache=False, **settings))


def test_saved_adapter_is_safetensors_under_names_of_its_own(
    make_llama: MakeLlama, tmp_path: Path
) -> None:
    model = get_peft_model(make_llama(), config_with(learn_curvature=True))
    model.save_pretrained(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {
        "README.md",
        "adapter_config.json",
        "adapter_model.safetensors",
    }
    names = load_file(tmp_path / "adapter_model.safetensors")
    suffixes = {name.rsplit(".", 1)[1] for name in names}
    assert suffixes == {"hyplora_A", "hyplora_B", "hyplora_log_curvature"}


def test_biases_can_be_trained_and_saved_beside_the_adapter(tmp_path: Path) -> None:
    def make_gpt2() -> GPT2LMHeadModel:
        torch.manual_seed(0)
        return GPT2LMHeadModel(GPT2Config(n_embd=16, n_layer=1, n_head=2, vocab_size=61)).eval()

    tokens = torch.arange(3, 20).unsqueeze(0)
    model = get_peft_model(make_gpt2(), config_with(target_modules=["c_attn"], bias="hyplora_only"))
    trainable = {name for name, p in model.named_parameters() if p.requires_grad}
    assert {name for name in trainable if "hyplora_" not in name} == {
        "base_model.model.transformer.h.0.attn.c_attn.base_layer.bias"
    }
    train_a_step(model, tokens)
    model.save_pretrained(tmp_path)
    loaded = PeftModel.from_pretrained(make_gpt2(), tmp_path)
    assert torch.equal(logits(loaded, tokens), logits(model, tokens))


def test_low_memory_loading_gives_the_same_adapter(
    make_llama: MakeLlama, tokens: Tensor, tmp_path: Path
) -> None:
    model = get_peft_model(make_llama(), config_with(learn_curvature=True))
    model.save_pretrained(tmp_path)
    loaded = PeftModel.from_pretrained(make_llama(), tmp_path, low_cpu_mem_usage=True)
    assert torch.equal(logits(loaded, tokens), logits(model, tokens))


def test_transformers_loads_the_adapter_by_itself(
    make_llama: MakeLlama, tokens: Tensor, tmp_path: Path
) -> None:
    model = get_peft_model(make_llama(), config_with())
    model.save_pretrained(tmp_path)
    loaded = make_llama()
    loaded.load_adapter(str(tmp_path))
    assert torch.equal(logits(loaded, tokens), logits(model, tokens))


def test_process_without_hyplora_refuses_the_adapter(make_llama: MakeLlama, tmp_path: Path) -> None:
    make_llama().save_pretrained(tmp_path / "base")
    get_peft_model(make_llama(), config_with()).save_pretrained(tmp_path / "adapter")
    script = """
import sys
sys.modules["hyplora"] = None  # any import of it fails
from peft import PeftModel
from transformers import AutoModelForCausalLM
base = AutoModelForCausalLM.from_pretrained(sys.argv[1])
PeftModel.from_pretrained(base, sys.argv[2])
"""
    outcome = subprocess.run(
        [sys.executable, "-c", script, tmp_path / "base", tmp_path / "adapter"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert outcome.returncode != 0
    assert outcome.stderr.strip().endswith("KeyError: 'HYPLORA'")


def test_adapter_is_float32_on_a_bfloat16_base_and_outputs_stay_bfloat16(
    make_llama: MakeLlama, tokens: Tensor
) -> None:
    model = get_peft_model(make_llama().bfloat16(), config_with(learn_curvature=True))
    adapter = {p.dtype for name, p in model.named_parameters() if "hyplora_" in name}
    assert adapter == {torch.float32}
    assert logits(model, tokens).dtype is torch.bfloat16
    assert train_a_step(model, tokens) > 0
    assert all(p.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize("use_reentrant", [False, True])
def test_gradient_checkpointing_gives_the_same_gradients(
    use_reentrant: bool, make_llama: MakeLlama, tokens: Tensor
) -> None:
    def gradients(*, checkpointed: bool) -> list[Tensor]:
        torch.manual_seed(0)
        model = get_peft_model(make_llama(), config_with(learn_curvature=True)).train()
        if checkpointed:
            model.enable_input_require_grads()
            model.activation_checkpointing_enable({"use_reentrant": use_reentrant})
        model(input_ids=tokens, labels=tokens).loss.backward()
        return [p.grad for p in model.parameters() if p.grad is not None]

    torch.testing.assert_close(gradients(checkpointed=True), gradients(checkpointed=False))


def test_disabling_the_adapter_gives_the_base_model_for_as_long(
    make_llama: MakeLlama, tokens: Tensor
) -> None:
    model = get_peft_model(make_llama(), config_with())
    adapted, base = logits(model, tokens), logits(make_llama(), tokens)
    with model.disable_adapter():
        assert torch.equal(logits(model, tokens), base)
    assert torch.equal(logits(model, tokens), adapted)
    assert not torch.equal(adapted, base)
    assert torch.equal(logits(model.unload(), tokens), base)


def test_several_adapters_are_added_switched_combined_and_deleted(
    make_llama: MakeLlama, tokens: Tensor
) -> None:
    first, second = config_with(curvature=0.5), config_with(r=2, learn_curvature=True)
    model = get_peft_model(make_llama(), first, adapter_name="first")
    with_first = logits(model, tokens)
    model.add_adapter("second", second)
    assert torch.equal(logits(model, tokens), with_first)
    model.set_adapter("second")
    with_second = logits(model, tokens)
    assert not torch.equal(with_second, with_first)
    trainable = {name.rsplit(".", 1)[1] for name, p in model.named_parameters() if p.requires_grad}
    assert trainable == {"second"}
    model.base_model.set_adapter(["first", "second"])
    assert not torch.equal(logits(model, tokens), with_second)
    model.base_model.set_adapter("second")
    model.delete_adapter("first")
    assert torch.equal(logits(model, tokens), with_second)
    assert not any("first" in name for name, _ in model.named_parameters())
    assert layer_curvatures(model, "first") == {}


def test_second_adapter_on_all_linear_layers_does_not_adapt_the_first(
    make_llama: MakeLlama,
) -> None:
    model = get_peft_model(make_llama(), config_with())
    model.add_adapter("second", config_with())
    layers = [m for m in model.modules() if isinstance(m, HypLoraLinear)]
    assert len(layers) == 14
    assert all(set(layer.hyplora_A) == {"default", "second"} for layer in layers)


def test_plain_lora_stays_that_of_peft(make_llama: MakeLlama, tokens: Tensor) -> None:
    model = get_peft_model(make_llama(), LoraConfig(r=4, init_lora_weights=False))
    assert not any(isinstance(module, HypLoraLinear) for module in model.modules())
    merged = logits(copy.deepcopy(model).merge_and_unload(), tokens)
    torch.testing.assert_close(merged, logits(model, tokens))


@pytest.mark.parametrize(
    "merge",
    [
        lambda model: model.merge_and_unload(),
        lambda model: model.merge_adapter(),
        lambda model: model.unmerge_adapter(),
        lambda model: next(m for m in model.modules() if isinstance(m, HypLoraLinear)).merge(),
    ],
)
def test_merging_is_refused_with_the_reason(
    merge: Callable[[nn.Module], object], make_llama: MakeLlama
) -> None:
    model = get_peft_model(make_llama(), config_with())
    with pytest.raises(NotMergeableError, match="its gain differs from token to token"):
        merge(model)


def test_adding_adapters_up_is_refused_with_the_reason(make_llama: MakeLlama) -> None:
    model = get_peft_model(make_llama(), config_with())
    with pytest.raises(NotMergeableError, match="cannot be added up into one"):
        model.add_weighted_adapter(["default"], [1.0], "sum")


def test_adapter_does_not_claim_to_be_convertible_to_lora(make_llama: MakeLlama) -> None:
    assert not get_peft_model(make_llama(), config_with()).supports_lora_conversion()


def test_target_modules_that_match_nothing_are_an_error(make_llama: MakeLlama) -> None:
    with pytest.raises(NoMatchingPeftModuleError, match="query"):
        get_peft_model(make_llama(), config_with(target_modules=["query"]))


def test_target_module_that_is_not_linear_is_refused_by_name(make_llama: MakeLlama) -> None:
    with pytest.raises(UnsupportedLayerError, match=r"'model.embed_tokens' is a Embedding"):
        get_peft_model(make_llama(), config_with(target_modules=["embed_tokens"]))


def test_layers_that_their_parent_reads_instead_of_calling_are_refused() -> None:
    attention = nn.ModuleDict({"attention": nn.MultiheadAttention(8, 2)})
    with pytest.raises(UnsupportedLayerError, match="MultiheadAttention reads its weight"):
        get_peft_model(attention, HypLoraConfig(target_modules=["out_proj"]))
    mamba = nn.ModuleDict({"out_proj": nn.Linear(8, 8)})
    mamba.config = MambaConfig(num_hidden_layers=1)
    with pytest.raises(UnsupportedLayerError, match="fused kernels read its weight"):
        get_peft_model(mamba, HypLoraConfig(target_modules=["out_proj"]))


def test_default_target_modules_of_an_architecture_are_those_of_lora(
    make_llama: MakeLlama,
) -> None:
    model = get_peft_model(make_llama(), config_with(target_modules=None))
    assert model.peft_config["default"].target_modules == {"q_proj", "v_proj"}


def test_curvature_of_every_layer_is_read_by_name(make_llama: MakeLlama) -> None:
    targets = {"target_modules": ["q_proj", "o_proj"], "curvature": 2.0}
    learned = layer_curvatures(
        get_peft_model(make_llama(), config_with(learn_curvature=True, **targets))
    )
    fixed = layer_curvatures(get_peft_model(make_llama(), config_with(**targets)))
    assert fixed == dict.fromkeys(learned, 2.0)
    assert learned == pytest.approx(fixed, rel=1e-6)
    assert len(learned) == 4
    assert "base_model.model.model.layers.1.self_attn.o_proj" in learned
    assert layer_curvatures(make_llama()) == {}
