"""HypLoRA, hyperbolic low-rank adapters of language models, as a PEFT method.

Importing this package registers the method with PEFT, after which `peft.get_peft_model`,
`save_pretrained` and `PeftModel.from_pretrained` know it. It needs torch, transformers and peft.
"""

from hyplora.errors import HypLoraError
from hyplora.tuner.approximate_merge import ApproximateMerge
from hyplora.tuner.config import HypLoraConfig
from hyplora.tuner.hotswap import hotswap_adapter
from hyplora.tuner.layer_geometry import LayerGeometry, layer_curvatures, record_geometry
from hyplora.tuner.registration import register

__all__ = [
    "ApproximateMerge",
    "HypLoraConfig",
    "HypLoraError",
    "LayerGeometry",
    "hotswap_adapter",
    "layer_curvatures",
    "record_geometry",
]

register()
