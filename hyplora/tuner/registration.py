"""Makes HypLoRA one of PEFT's methods, under a type of its own (docs/adr/0002-own-peft-type.md)."""

from __future__ import annotations

from peft import PeftType
from peft.utils import register_peft_method

from hyplora.errors import RegistrationError
from hyplora.tuner.config import HypLoraConfig
from hyplora.tuner.model import HypLoraModel

_NAME = "HYPLORA"


def register() -> None:
    """Add the type HYPLORA to PEFT, with its configuration and model.

    Raises:
        RegistrationError: If PEFT has a method of this name already: its adapters and ours would be
            taken for each other.
    """
    if _NAME in PeftType.__members__:
        raise RegistrationError(
            f"peft already has a method {_NAME}, which this package would hide: use a peft release "
            f"without it (peft>=0.21,<0.22), or that method without this package"
        )
    _add_member()
    register_peft_method(
        name=_NAME.lower(), config_cls=HypLoraConfig, model_cls=HypLoraModel, prefix="hyplora_"
    )


def _add_member() -> None:
    """Write HYPLORA into the enumeration, which Python does not let one extend.

    A bare string in PEFT's tables would not do: transformers reads `peft_type.value`.
    """
    member = str.__new__(PeftType, _NAME)
    member._name_ = _NAME
    member._value_ = _NAME
    member._sort_order_ = len(PeftType.__members__)
    type.__setattr__(PeftType, _NAME, member)
    PeftType._member_names_.append(_NAME)
    PeftType._member_map_[_NAME] = member
    PeftType._value2member_map_[_NAME] = member
