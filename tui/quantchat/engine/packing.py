"""What transformers is told of a model's quantization, where its own reading of the config would go wrong."""

from __future__ import annotations

from typing import Any

from quantchat.domain.models import QuantSpec

UNPACKED_METHODS = ("fp8", "mxfp4", "compressed-tensors")
"""Their kernels would be fetched over the network, for some GPUs only; unpacked to 16 bits they run everywhere."""
LEFT_OUT_BY_AQLM = "linear_weights_not_to_quantize"


def quantization_config(spec: QuantSpec, config: Any) -> dict[str, Any]:
    """Return the settings to load with; empty for unquantized weights.

    Older folders say them in a file of their own, or by another name; transformers would load random weights then.

    Args:
        spec: What the catalog read.
        config: transformers' config of the model.
    """
    nested = getattr(config.get_text_config(), "quantization_config", None)
    stated = getattr(config, "quantization_config", None) or nested
    renamed = spec.raw and isinstance(stated, dict) and stated.get("quant_method") != spec.method
    settings = dict(spec.raw if renamed or not stated else stated)
    if spec.method in UNPACKED_METHODS:
        settings |= {"quant_method": spec.method, "dequantize": True}
    if isinstance(named := settings.get(LEFT_OUT_BY_AQLM), list):
        # The configs name weights, and transformers 5 compares them with the names of modules.
        settings[LEFT_OUT_BY_AQLM] = [str(name).removesuffix(".weight") for name in named]
    return settings
