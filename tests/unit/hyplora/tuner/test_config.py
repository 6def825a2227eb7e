import dataclasses
import json
import math
import pickle
from pathlib import Path
from typing import Any

import pytest
from peft import PeftConfig, PeftType

from hyplora import HypLoraConfig
from hyplora.errors import ConfigError, HypLoraError
from hyplora.tuner.config_checks import ADAPTER_FORMAT
from workers.specs import HypLoraSpec

PEFT_ONLY = {
    "bias",
    "hyplora_format",
    "layers_pattern",
    "layers_to_transform",
    "modules_to_save",
}
"""Settings that a job does not offer."""


def default_of(field: dataclasses.Field[Any]) -> object:
    made = field.default_factory is not dataclasses.MISSING
    return field.default_factory() if made else field.default


def own_defaults() -> dict[str, Any]:
    inherited = {field.name for field in dataclasses.fields(PeftConfig)}
    return {
        field.name: default_of(field)
        for field in dataclasses.fields(HypLoraConfig)
        if field.name not in inherited
    }


def test_spec_and_config_have_the_same_fields_and_defaults() -> None:
    spec_defaults = {
        name: field.get_default(call_default_factory=True)
        for name, field in HypLoraSpec.model_fields.items()
        if name != "method"
    }
    config_defaults = {k: v for k, v in own_defaults().items() if k not in PEFT_ONLY}
    assert config_defaults == spec_defaults


def test_every_default_spec_makes_a_config() -> None:
    config = HypLoraConfig(**HypLoraSpec().model_dump(exclude={"method"}))
    assert config == HypLoraConfig()


def test_spec_and_config_have_the_same_largest_radius_cap() -> None:
    largest = next(
        bound.le
        for bound in HypLoraSpec.model_fields["radius_cap"].metadata
        if hasattr(bound, "le")
    )
    assert HypLoraConfig(radius_cap=largest).radius_cap == largest
    with pytest.raises(ConfigError):
        HypLoraConfig(radius_cap=math.nextafter(largest, math.inf))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"r": 0}, "r must be an integer of at least 1, got 0: choose"),
        ({"r": 2.5}, "r must be an integer of at least 1, got 2.5"),
        ({"r": True}, "got True"),
        ({"alpha": 0}, "alpha must be a positive, finite number, got 0"),
        ({"dropout": 1.0}, "dropout must be a probability below 1, got 1.0"),
        ({"dropout": -0.1}, "dropout must be a probability below 1, got -0.1"),
        ({"curvature": 0.0}, "curvature must be a positive, finite number, got 0.0"),
        ({"curvature": -1.0}, "curvature must be a positive, finite number, got -1.0"),
        ({"curvature": math.inf}, "got inf"),
        ({"curvature": math.nan}, "got nan"),
        ({"curvature": "1"}, "got '1'"),
        ({"norm_scale": 0.0}, "norm_scale must be a positive, finite number, got 0.0"),
        ({"radius_cap": 0.0}, "radius_cap must be a positive, finite number, got 0.0"),
        ({"radius_cap": 21.0}, "radius_cap must be at most 20, got 21.0"),
        ({"rank_pattern": {"q_proj": 0}}, "rank_pattern['q_proj'] must be an integer"),
        ({"alpha_pattern": {"q_proj": -1}}, "alpha_pattern['q_proj'] must be a positive, finite"),
        ({"curvature_pattern": {"q_proj": 0}}, "curvature_pattern['q_proj'] must be a positive"),
        ({"rank_pattern": ["q_proj"]}, "rank_pattern must map layer names to numbers, got ["),
        ({"init_weights": "pissa"}, "init_weights must be True, False or 'gaussian', got 'pissa'"),
        ({"projection": "poincare"}, "projection must be one of lorentz, stereographic, euclidean"),
        ({"curvature_bounds": (1, 1)}, "curvature_bounds must rise, got (1, 1)"),
        ({"curvature_bounds": (0, 1)}, "curvature_bounds must be a positive, finite number, got 0"),
        ({"curvature_bounds": 1.0}, "curvature_bounds must be a smallest and a largest K, got 1.0"),
        (
            {"learn_curvature": True, "curvature": 1e-4},
            "curvature [0.0001] must start inside curvature_bounds (0.001, 10000.0)",
        ),
        ({"curvature_gradient_bound": 0}, "curvature_gradient_bound must be a positive, finite"),
        ({"share_curvature": True}, "share_curvature True has no effect without learn_curvature"),
        (
            {"learn_curvature": True, "share_curvature": True, "curvature_pattern": {"q": 2.0}},
            "curvature_pattern {'q': 2.0} contradicts share_curvature True",
        ),
        (
            {"projection": "euclidean", "learn_curvature": True},
            "have nothing to learn in projection 'euclidean'",
        ),
        ({"bias": "lora_only"}, "bias must be one of none, all, hyplora_only, got 'lora_only'"),
        ({"target_modules": []}, "target_modules is empty"),
        ({"target_modules": ""}, "target_modules is empty"),
        ({"layers_to_transform": 0}, "needs target_modules as a list of name suffixes"),
        (
            {"target_modules": ["q_proj"], "layers_pattern": "layers"},
            "layers_pattern 'layers' has no effect without layers_to_transform",
        ),
        ({"hyplora_format": 0}, "hyplora_format must be a positive integer, got 0"),
        (
            {"hyplora_format": ADAPTER_FORMAT + 1},
            "reads formats up to 2: upgrade hyplora to load it",
        ),
    ],
    ids=str,
)
def test_unusable_setting_is_refused_by_name_and_value(
    settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError) as refusal:
        HypLoraConfig(**settings)
    assert message in str(refusal.value)


def test_errors_survive_pickling() -> None:
    with pytest.raises(HypLoraError) as refusal:
        HypLoraConfig(r=0)
    copy = pickle.loads(pickle.dumps(refusal.value))
    assert type(copy) is ConfigError
    assert str(copy) == str(refusal.value)


def test_scale_is_alpha_over_r_or_over_its_root() -> None:
    assert HypLoraConfig(r=4, alpha=8).scaling == 2.0
    assert HypLoraConfig(r=4, alpha=8, use_rslora=True).scaling == 4.0


def test_saved_config_comes_back_equal_and_lists_modules_in_order(tmp_path: Path) -> None:
    config = HypLoraConfig(
        r=4, target_modules=["v_proj", "q_proj", "k_proj"], curvature=0.5, learn_curvature=True
    )
    config.save_pretrained(tmp_path)
    saved = json.loads((tmp_path / "adapter_config.json").read_text())
    assert saved["target_modules"] == ["k_proj", "q_proj", "v_proj"]
    assert saved["peft_type"] == "HYPLORA"
    assert saved["hyplora_format"] == ADAPTER_FORMAT
    assert PeftConfig.from_pretrained(tmp_path) == config


def test_newer_format_is_refused_although_peft_drops_settings_it_does_not_know(
    tmp_path: Path,
) -> None:
    HypLoraConfig().save_pretrained(tmp_path)
    path = tmp_path / "adapter_config.json"
    newer = json.loads(path.read_text()) | {"hyplora_format": 3, "shape": "new"}
    path.write_text(json.dumps(newer))
    with (
        pytest.warns(UserWarning, match="Unexpected keyword arguments"),
        pytest.raises(ConfigError, match="upgrade hyplora"),
    ):
        PeftConfig.from_pretrained(tmp_path)


def test_config_carries_its_own_peft_type() -> None:
    assert HypLoraConfig().peft_type is PeftType.HYPLORA
