import copy
import pickle
import subprocess
import sys

import pytest
from peft import PeftType
from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING, PEFT_TYPE_TO_TUNER_MAPPING

from hyplora import HypLoraConfig
from hyplora.errors import RegistrationError
from hyplora.tuner.model import HypLoraModel
from hyplora.tuner.registration import register


def test_peft_knows_the_type_in_every_way_it_asks() -> None:
    member = PeftType.HYPLORA
    assert PeftType("HYPLORA") is PeftType["HYPLORA"] is member
    assert list(PeftType)[-1] is member
    assert (member.name, member.value, str.__str__(member)) == ("HYPLORA",) * 3
    assert isinstance(member, PeftType)
    assert PEFT_TYPE_TO_CONFIG_MAPPING["HYPLORA"] is HypLoraConfig
    assert PEFT_TYPE_TO_TUNER_MAPPING[member] is HypLoraModel


def test_type_survives_pickling_and_copying() -> None:
    assert pickle.loads(pickle.dumps(PeftType.HYPLORA)) is PeftType.HYPLORA
    assert copy.deepcopy(HypLoraConfig()).peft_type is PeftType.HYPLORA


def test_second_method_of_the_name_is_refused() -> None:
    with pytest.raises(RegistrationError, match="peft already has a method HYPLORA"):
        register()


def test_importing_hyplora_pulls_in_no_platform_and_no_shape_checker() -> None:
    script = """
import sys
platform = {"ray", "mlflow", "fastapi", "pydantic", "sqlalchemy", "jaxtyping", "workers", "jobs"}
sys.modules.update(dict.fromkeys(platform))  # any import of them fails
import hyplora
"""
    subprocess.run([sys.executable, "-W", "error", "-c", script], check=True)
