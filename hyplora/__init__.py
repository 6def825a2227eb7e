"""HypLoRA, hyperbolic low-rank adapters of language models, as a PEFT method.

Importing this package registers the method with PEFT, after which `peft.get_peft_model`,
`save_pretrained` and `PeftModel.from_pretrained` know it. It needs torch, transformers and peft.
"""

from hyplora.errors import HypLoraError
from hyplora.tuner.config import HypLoraConfig
from hyplora.tuner.curvatures import layer_curvatures
from hyplora.tuner.registration import register

__all__ = ["HypLoraConfig", "HypLoraError", "layer_curvatures"]

register()
