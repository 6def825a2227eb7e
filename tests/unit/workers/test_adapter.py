import json
import shutil
from copy import deepcopy
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from transformers import PreTrainedModel

from tests.tiny_model import write_tiny_model
from workers.adapter import (
    base_model_of,
    build_adapter,
    load_adapter,
    save_adapter,
    verify_saved,
)
from workers.base_model import load_base_model
from workers.errors import AdapterUnusableError, TargetModulesNotFoundError
from workers.specs import AdapterSpec, HypLoraSpec, LoraSpec

SPECS = [
    pytest.param(LoraSpec(init_weights=False), id="lora"),
    pytest.param(LoraSpec(init_weights=False, use_dora=True), id="dora"),
    pytest.param(HypLoraSpec(init_weights=False), id="hyplora"),
    pytest.param(HypLoraSpec(init_weights=False, learn_curvature=True), id="learned-curvature"),
]


@pytest.fixture
def base(tiny_model_dir: Path) -> PreTrainedModel:
    return load_base_model(str(tiny_model_dir))


def logits_of(model: torch.nn.Module) -> torch.Tensor:
    with torch.no_grad():
        return model.eval()(input_ids=torch.arange(24).reshape(2, 12)).logits


@pytest.mark.parametrize("spec", SPECS)
def test_only_the_adapter_trains_and_in_full_precision(
    spec: AdapterSpec, tiny_model_dir: Path
) -> None:
    model = build_adapter(load_base_model(str(tiny_model_dir), "bfloat16"), spec)
    for name, parameter in model.named_parameters():
        is_adapter = "lora_" in name
        assert parameter.requires_grad == is_adapter
        assert parameter.dtype == (torch.float32 if is_adapter else torch.bfloat16)


@pytest.mark.parametrize("spec", [LoraSpec(), HypLoraSpec()], ids=["lora", "hyplora"])
def test_a_new_adapter_leaves_the_answers_of_the_base_model(
    spec: AdapterSpec, base: PreTrainedModel
) -> None:
    before = logits_of(base)
    assert torch.equal(logits_of(build_adapter(base, spec)), before)


@pytest.mark.parametrize("spec", SPECS)
def test_a_saved_adapter_gives_identical_logits_when_loaded(
    spec: AdapterSpec, base: PreTrainedModel, tiny_model_dir: Path, tmp_path: Path
) -> None:
    before = logits_of(base)
    adapted = build_adapter(base, spec)
    expected = logits_of(adapted)
    assert not torch.equal(expected, before)
    save_adapter(adapted, tmp_path)
    loaded = load_adapter(load_base_model(str(tiny_model_dir)), tmp_path)
    assert torch.equal(logits_of(loaded), expected)
    assert not any(parameter.requires_grad for parameter in loaded.parameters())
    stock = PeftModel.from_pretrained(load_base_model(str(tiny_model_dir)), str(tmp_path))
    assert torch.equal(logits_of(stock), expected)


def test_every_setting_of_a_spec_reaches_the_adapter(base: PreTrainedModel) -> None:
    spec = HypLoraSpec(
        r=3, alpha=5.0, dropout=0.25, target_modules=("q_proj", "down_proj"), use_rslora=True,
        curvature=0.5, learn_curvature=True, norm_scale=7.0, radius_cap=3.0, init_weights=False,
    )  # fmt: skip
    config = build_adapter(base, spec).peft_config["default"]
    for name, value in spec.model_dump(exclude={"method", "target_modules"}).items():
        assert getattr(config, name) == value
    assert config.target_modules == {"q_proj", "down_proj"}


def test_every_setting_of_a_lora_spec_reaches_the_adapter(base: PreTrainedModel) -> None:
    spec = LoraSpec(
        r=3, alpha=5.0, dropout=0.25, use_rslora=True, use_dora=True, init_weights=False
    )
    config = build_adapter(base, spec).peft_config["default"]
    found = (config.r, config.lora_alpha, config.lora_dropout, config.use_rslora, config.use_dora)
    assert found == (3, 5.0, 0.25, True, True)
    assert config.init_lora_weights is False


@pytest.mark.parametrize(
    ("targets", "adapted"),
    [
        ("all-linear", 14),
        (("q_proj", "v_proj"), 4),
        (("layers.0.mlp.up_proj",), 1),
        (r".*\.1\..*_proj", 7),
    ],
)
def test_targets_are_suffixes_a_pattern_or_all_linear_layers(
    targets: tuple[str, ...] | str, adapted: int, base: PreTrainedModel
) -> None:
    model = build_adapter(base, HypLoraSpec(target_modules=targets))
    assert sum(name.endswith("hyplora_A") for name, _ in model.named_modules()) == adapted


@pytest.mark.parametrize("method", [LoraSpec, HypLoraSpec])
@pytest.mark.parametrize(
    ("targets", "named", "problem"),
    [
        (("query",), "'query'", "linear layers are named down_proj, gate_proj"),
        (("q_proj", "query"), "'query'", "match nothing"),
        ("query", "'query'", "match nothing"),
        ("(q_proj", "'(q_proj'", "is no regular expression"),
        (("input_layernorm",), "'input_layernorm'", "LlamaRMSNorm"),
    ],
)
def test_targets_that_match_nothing_to_adapt_are_named(
    targets: tuple[str, ...] | str,
    named: str,
    problem: str,
    method: type[LoraSpec] | type[HypLoraSpec],
    base: PreTrainedModel,
) -> None:
    with pytest.raises(TargetModulesNotFoundError, match=problem) as caught:
        build_adapter(base, method(target_modules=targets))
    assert f"adapter.target_modules {named} " in str(caught.value)


@pytest.fixture
def saved(tiny_model_dir: Path, tmp_path: Path) -> Path:
    model = load_base_model(str(tiny_model_dir))
    save_adapter(build_adapter(model, HypLoraSpec(init_weights=False)), tmp_path / "adapter")
    return tmp_path / "adapter"


def test_an_adapter_remembers_its_base_model(saved: Path, tiny_model_dir: Path) -> None:
    assert base_model_of(saved) == str(tiny_model_dir)


def test_a_folder_without_adapter_is_unusable(tmp_path: Path, base: PreTrainedModel) -> None:
    with pytest.raises(AdapterUnusableError, match=r"no adapter_config\.json"):
        base_model_of(tmp_path)
    with pytest.raises(AdapterUnusableError, match="no adapter_config"):
        load_adapter(base, tmp_path)


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"r": 4}, "and .* here; check base model, rank"),
        ({"target_modules": ["q_proj"]}, "and None here"),
        ({"target_modules": ["query"]}, "does not fit"),
        ({"peft_type": "UNHEARD_OF"}, "cannot be read"),
        ({"hyplora_format": 99}, "hyplora_format 99"),
    ],
)
def test_an_adapter_that_does_not_match_its_configuration_is_unusable(
    changes: dict[str, object], problem: str, saved: Path, base: PreTrainedModel
) -> None:
    config = saved / "adapter_config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | changes))
    with pytest.raises(AdapterUnusableError, match=problem):
        load_adapter(base, saved)


def test_an_adapter_of_another_base_model_is_unusable(saved: Path, tmp_path: Path) -> None:
    folder = write_tiny_model(tmp_path / "other", hidden_size=48)
    with pytest.raises(AdapterUnusableError, match="check base model"):
        load_adapter(load_base_model(str(folder)), saved)


def test_pickled_adapter_weights_are_not_read(
    saved: Path, base: PreTrainedModel, tmp_path: Path
) -> None:
    pickled = shutil.copytree(saved, tmp_path / "pickled")
    weights = pickled / "adapter_model.safetensors"
    weights.rename(pickled / "adapter_model.bin")
    with pytest.raises(AdapterUnusableError, match=r"adapter_model\.safetensors cannot be read"):
        load_adapter(base, pickled)


@pytest.mark.parametrize("spec", SPECS)
def test_a_saved_adapter_is_verified_and_the_model_left_as_it_was(
    spec: AdapterSpec, base: PreTrainedModel, tmp_path: Path
) -> None:
    adapted = build_adapter(base, spec)
    expected = logits_of(adapted)
    save_adapter(adapted, tmp_path)
    verify_saved(adapted, tmp_path, torch.arange(12)[None])
    assert list(adapted.peft_config) == ["default"]
    assert torch.equal(logits_of(adapted), expected)


def test_a_saved_adapter_that_answers_differently_is_refused(
    base: PreTrainedModel, tmp_path: Path
) -> None:
    adapted = build_adapter(base, HypLoraSpec(init_weights=False))
    save_adapter(adapted, tmp_path)
    with torch.no_grad():
        next(p for p in adapted.parameters() if p.requires_grad).add_(1.0)
    with pytest.raises(AdapterUnusableError, match="answers differently"):
        verify_saved(adapted, tmp_path, torch.arange(12)[None])


def test_a_saved_adapter_that_is_damaged_is_refused(base: PreTrainedModel, tmp_path: Path) -> None:
    adapted = build_adapter(base, HypLoraSpec(init_weights=False))
    save_adapter(adapted, tmp_path)
    weights = tmp_path / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(AdapterUnusableError, match="does not load"):
        verify_saved(adapted, tmp_path, torch.arange(12)[None])


@pytest.mark.filterwarnings("ignore:The following .*_pattern keys did not match")  # PEFT's own
@pytest.mark.parametrize("field", ["rank_pattern", "alpha_pattern"])
@pytest.mark.parametrize("spec", [LoraSpec, HypLoraSpec])
def test_a_pattern_that_matches_no_adapted_layer_is_refused(
    spec: type[LoraSpec | HypLoraSpec], field: str, base: PreTrainedModel
) -> None:
    with pytest.raises(TargetModulesNotFoundError, match=f"{field}.*q_prj.*matches none of the"):
        build_adapter(base, spec(**{field: {"q_prj": 2}}))


def test_every_setting_of_a_hyplora_spec_reaches_the_adapter(base: PreTrainedModel) -> None:
    spec = HypLoraSpec(
        target_modules=("q_proj", "v_proj"),
        exclude_modules=("layers.0.self_attn.v_proj",),
        rank_pattern={"q_proj": 2},
        alpha_pattern={"v_proj": 3.0},
        init_weights="gaussian",
        projection="stereographic",
        curvature=0.5,
        curvature_pattern={"v_proj": 2.0},
        learn_curvature=True,
        curvature_bounds=(0.1, 10.0),
        curvature_gradient_bound=0.01,
        learn_norm_scale=True,
        rescale_output=False,
    )
    config = build_adapter(base, spec).peft_config["default"]
    settings = spec.model_dump(exclude={"method", "target_modules", "exclude_modules"})
    assert {name: getattr(config, name) for name in settings} == settings
    assert config.target_modules == {"q_proj", "v_proj"}
    assert config.exclude_modules == {"layers.0.self_attn.v_proj"}


def test_pickled_weights_of_an_adapter_are_not_read(base: PreTrainedModel, tmp_path: Path) -> None:
    save_adapter(build_adapter(deepcopy(base), LoraSpec()), tmp_path)
    (tmp_path / "adapter_model.safetensors").unlink()
    torch.save({}, tmp_path / "adapter_model.bin")
    with pytest.raises(AdapterUnusableError, match=r"adapter_model\.safetensors cannot be read"):
        load_adapter(base, tmp_path)
