"""Methods of fine-tuning that can be compared, each a preset or an adapter. Torch-free."""

from collections import Counter
from collections.abc import Iterable
from enum import StrEnum
from typing import Annotated, Self

from pydantic import Field, model_validator

from jobs.label_specs import NAME_PATTERN
from workers.specs import AdapterSpec, HypLoraSpec, LoraSpec, LowRankSpec, Spec

_ALWAYS_SAID = ("method", "r", "alpha", "curvature")
_STEREOGRAPHIC_CURVATURE = 0.5  # the authors' own for this projection


class PresetName(StrEnum):
    """Methods that need no more than their name."""

    BASE = "base"
    """The base model as it is, without an adapter."""

    LORA = "lora"
    """LoRA (Hu et al. 2021, arXiv:2106.09685)."""

    RSLORA = "rslora"
    """LoRA with the scale alpha / sqrt(r) (Kalajdzievski 2023, arXiv:2312.03732)."""

    DORA = "dora"
    """DoRA (Liu et al. 2024, arXiv:2402.09353)."""

    HYPLORA = "hyplora"
    """HypLoRA in the Lorentz model, with K fixed (Yang et al. 2024, arXiv:2410.04010)."""

    HYPLORA_STEREOGRAPHIC = "hyplora-stereographic"
    """HypLoRA in the authors' simplified projection, with their K = 0.5."""

    HYPLORA_LEARNED = "hyplora-learned"
    """HypLoRA in the Lorentz model, where every layer learns its K."""


class MethodSpec(Spec):
    """One method: a preset, or an adapter under a name of the user's own."""

    name: str = Field("", pattern=rf"{NAME_PATTERN}|^$")
    """What the report calls it; by default the preset's name."""

    preset: PresetName | None = None
    """A method that needs no more than its name; what it leaves open is as `adapter` says."""

    adapter: AdapterSpec | None = None
    """Or an adapter of one's own, whole: nothing of the comparison's `adapter` goes into it."""

    learning_rates: tuple[Annotated[float, Field(gt=0)], ...] | None = Field(
        None, min_length=1, max_length=16
    )
    """Learning rates that are tried, as many as of every other method; by default those of the
    comparison."""

    @model_validator(mode="before")
    @classmethod
    def _a_preset_names_its_method(cls, given: object) -> object:
        if isinstance(given, dict) and not given.get("name") and given.get("preset"):
            return given | {"name": str(given["preset"])}
        return given

    @model_validator(mode="after")
    def _is_one_method(self) -> Self:
        if (self.preset is None) == (self.adapter is None):
            raise ValueError(
                f"method {self.name!r}: give either preset ({', '.join(PresetName)}) or adapter"
            )
        if not self.name:
            raise ValueError("name: a method with an adapter of its own needs a name")
        if self.is_base and self.learning_rates:
            raise ValueError("learning_rates: the base model is not trained; leave them out")
        require_distinct(f"method {self.name!r}: learning_rates", self.learning_rates or ())
        return self

    @property
    def is_base(self) -> bool:
        """Whether nothing is trained."""
        return self.preset is PresetName.BASE

    def adapter_with(self, common: LowRankSpec) -> LoraSpec | HypLoraSpec | None:
        """The adapter that the method trains; None of the base model.

        Args:
            common: What presets leave open.
        """
        if self.adapter is not None:
            return self.adapter
        fields = common.model_dump()
        match self.preset:
            case PresetName.LORA:
                return LoraSpec(**fields)
            case PresetName.RSLORA:
                return LoraSpec(**fields | {"use_rslora": True})
            case PresetName.DORA:
                return LoraSpec(**fields, use_dora=True)
            case PresetName.HYPLORA:
                return HypLoraSpec(**fields)
            case PresetName.HYPLORA_STEREOGRAPHIC:
                return HypLoraSpec(
                    **fields, projection="stereographic", curvature=_STEREOGRAPHIC_CURVATURE
                )
            case PresetName.HYPLORA_LEARNED:
                return HypLoraSpec(**fields, learn_curvature=True)
        return None


def adapter_in_words(adapter: LoraSpec | HypLoraSpec | None) -> str:
    """An adapter's rank, scale and whatever is not as by default."""
    if adapter is None:
        return "none"
    parts = [f"r = {adapter.r}", f"alpha = {adapter.alpha:g}"]
    if isinstance(adapter, HypLoraSpec):
        parts.append(f"K = {adapter.curvature:g}")
    default = type(adapter)()
    for name, value in adapter:
        if name not in _ALWAYS_SAID and value != getattr(default, name):
            parts.append(name if value is True else f"{name} = {value}")
    kind = "HypLoRA" if isinstance(adapter, HypLoraSpec) else "LoRA"
    return ", ".join([kind, *parts])


def require_distinct(field: str, values: Iterable[object]) -> None:
    """Raise ValueError, with the field, where a value is given twice."""
    for value, number in Counter(values).items():
        if number > 1:
            raise ValueError(f"{field}: {value!r} is given twice; give each once")
