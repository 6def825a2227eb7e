"""The errors of the adapter library.

    HypLoraError
    ├── GeometryError          a map was asked for what it cannot compute
    ├── ConfigError            a setting of HypLoraConfig cannot be used
    ├── AdapterNamesError      adapter_names does not fit the model or the batch
    ├── UnsupportedLayerError  a target module is of a kind that HypLoRA cannot adapt
    ├── CalibrationError       calibration data do not reach what is to be measured
    ├── AnalysisError          there is nothing to measure in what was given
    ├── NotMergeableError      the adapter was to be folded into fixed weights
    └── RegistrationError      PEFT cannot take HypLoRA in

Each also derives from the built-in error that PEFT raises in its place, so that code written for
PEFT's tuners keeps working. A message is the only argument, so that errors survive pickling.
"""


class HypLoraError(Exception):
    """Base of every error that the adapter library raises."""


class GeometryError(HypLoraError, ValueError):
    """A map was asked for what it cannot compute."""


class ConfigError(HypLoraError, ValueError):
    """A setting of `HypLoraConfig` cannot be used."""


class AdapterNamesError(HypLoraError, ValueError):
    """`adapter_names` does not fit the model or the batch."""


class UnsupportedLayerError(HypLoraError, TypeError):
    """A target module is of a kind that HypLoRA cannot adapt."""


class CalibrationError(HypLoraError, ValueError):
    """Calibration data do not reach what is to be measured."""


class AnalysisError(HypLoraError, ValueError):
    """There is nothing to measure in what was given."""


class NotMergeableError(HypLoraError, ValueError):
    """The adapter was to be folded into fixed weights, which its gain does not allow."""


class RegistrationError(HypLoraError, ImportError):
    """PEFT cannot take HypLoRA in."""
