"""The quantization formats that are recognised: one small definition per format, and where configs name them.

To add a format, add a definition to `FORMATS`. One without a `refusal` can be loaded; its config is then held to the
types below, because a wrong one would load as noise.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

Path = tuple[str, ...]


class Setting(msgspec.Struct, frozen=True):
    """Where a setting may stand, most usual place first, and what it must be.

    Attributes:
        places: Key paths; `*` takes the first value of an object.
        kind: Type of the value.
        default: What the format's library takes when the config is silent; `...` if it must be said.
    """

    places: tuple[Path, ...]
    kind: type = int
    default: object = None


class Format(msgspec.Struct, frozen=True, kw_only=True):
    """How one quantization format writes its config and its tensors.

    Attributes:
        method: Canonical `quant_method`.
        names: Other names of it.
        settings: Fields of `QuantSpec` to where they stand.
        raw_names: Field of `QuantSpec` to the key that transformers reads, where the two differ.
        extras: Further settings that transformers reads: key to where they stand.
        refusal: Why it cannot run here; empty if it can.
        packed: Suffix of tensors that pack several weights into an integer.
        beside: Suffixes of tensors that go with the weights and are none.
        counts: Whether weights can be counted from the headers.
    """

    method: str
    names: tuple[str, ...] = ()
    title: str = ""
    settings: Mapping[str, Setting] = {}
    raw_names: Mapping[str, str] = {}
    extras: Mapping[str, Setting] = {}
    refusal: str = ""
    packed: str = ""
    beside: tuple[str, ...] = ()
    counts: bool = True


def _at(*places: str, kind: type = int, default: object = None) -> Setting:
    return Setting(tuple(tuple(place.split(".")) for place in places), kind, default)


_PACKAGE = "it needs a package that quantchat does not use"
_KERNEL = "there is no kernel for it in quantchat"
_BITS = _at("bits", "w_bit", "wbits", "nbits")
_GROUP_SIZE = _at("group_size", "q_group_size", "groupsize")
_SCALES = (".weight_scale_inv", ".weight_scale", ".input_scale", ".weight_shape", ".weight_zero_point", ".weight_g_idx")

UNQUANTIZED = Format(method="none", title="Unquantized")
UNKNOWN = Format(method="unknown", counts=False)

FORMATS = (
    Format(
        method="gptq",
        names=("marlin",),
        title="GPTQ",
        settings={
            "bits": _at("bits", "wbits", default=...),
            "group_size": _at("group_size", "groupsize", default=128),
            "desc_act": _at("desc_act", kind=bool, default=False),
            "sym": _at("sym", kind=bool, default=True),
            "checkpoint_format": _at("checkpoint_format", "format", kind=str, default="gptq"),
            "lm_head": _at("lm_head", kind=bool, default=False),
        },
        packed=".qweight",
        beside=(".qzeros", ".scales", ".g_idx"),
    ),
    Format(
        method="awq",
        title="AWQ",
        settings={
            "bits": _at("bits", "w_bit", default=...),
            "group_size": _at("group_size", "q_group_size", default=128),
            "checkpoint_format": _at("version", "checkpoint_format", "format", kind=str, default="gemm"),
            "lm_head": _at("lm_head", kind=bool, default=False),
        },
        raw_names={"checkpoint_format": "version"},
        extras={"zero_point": _at("zero_point", kind=bool, default=True)},
        packed=".qweight",
        beside=(".qzeros", ".scales"),
    ),
    Format(
        method="compressed-tensors",
        names=("compressed_tensors", "sparseml"),
        title="compressed-tensors",
        settings={
            "bits": _at("config_groups.*.weights.num_bits"),
            "group_size": _at("config_groups.*.weights.group_size"),
            "sym": _at("config_groups.*.weights.symmetric", kind=bool),
            "checkpoint_format": _at("format", kind=str),
        },
        refusal="transformers unpacks it to full size, and needs another package for that",
        packed=".weight_packed",
        beside=_SCALES,
    ),
    Format(method="bitsandbytes", title="bitsandbytes", refusal=_PACKAGE, counts=False),
    Format(
        method="fp8",
        names=("fbgemm_fp8", "finegrained_fp8", "mxfp8"),
        title="FP8",
        refusal=_KERNEL,
        beside=_SCALES,
    ),
    Format(
        method="hqq",
        title="HQQ",
        settings={
            "bits": _at("quant_config.weight_quant_params.nbits", "weight_quant_params.nbits", "nbits"),
            "group_size": _at("quant_config.weight_quant_params.group_size", "weight_quant_params.group_size"),
        },
        refusal=_PACKAGE,
        counts=False,
    ),
    Format(
        method="auto-round",
        names=("intel/auto-round", "autoround", "auto_round"),
        title="AutoRound",
        settings={"bits": _BITS, "group_size": _GROUP_SIZE, "sym": _at("sym", kind=bool)},
        refusal="only its export to plain GPTQ or AWQ does",
        packed=".qweight",
        beside=(".qzeros", ".scales", ".g_idx"),
    ),
    Format(
        method="mlx",
        title="MLX",
        settings={"bits": _BITS, "group_size": _GROUP_SIZE},
        refusal="it is made for Apple's processors",
        counts=False,
    ),
    Format(method="aqlm", title="AQLM", refusal=_PACKAGE, counts=False),
    *(
        Format(
            method=method,
            names=names,
            title=title,
            settings={"bits": _BITS, "group_size": _GROUP_SIZE},
            refusal=refusal,
            counts=False,
        )
        for method, title, refusal, names in (
            ("exl2", "EXL2", "it needs the ExLlama program", ()),
            ("exl3", "EXL3", "it needs the ExLlama program", ()),
            ("mxfp4", "MXFP4", _KERNEL, ()),
            ("nvfp4", "NVFP4", _KERNEL, ("modelopt", "modelopt_fp4")),
            ("quanto", "Quanto", _PACKAGE, ()),
            ("torchao", "torchao", _PACKAGE, ()),
            ("eetq", "EETQ", _PACKAGE, ()),
            ("higgs", "HIGGS", _PACKAGE, ()),
            ("vptq", "VPTQ", _PACKAGE, ()),
            ("spqr", "SpQR", _PACKAGE, ()),
            ("quark", "Quark", _PACKAGE, ()),
            ("fp_quant", "FP-Quant", _PACKAGE, ()),
            ("bitnet", "BitNet", _KERNEL, ()),
            ("qqq", "QQQ", _KERNEL, ()),
            ("paroquant", "ParoQuant", _KERNEL, ()),
            ("gguf", "GGUF", _KERNEL, ()),
        )
    ),
)

BY_NAME = {name: entry for entry in FORMATS for name in (entry.method, *entry.names)}


class Source(msgspec.Struct, frozen=True):
    """A place that may hold a quantization config, and the method that it means when it names none."""

    file: str
    key: Path = ()
    method: str = ""


SOURCES = (
    Source("config.json", ("quantization_config",)),
    Source("config.json", ("text_config", "quantization_config")),
    Source("config.json", ("compression_config",), "compressed-tensors"),
    Source("quantize_config.json", (), "gptq"),
    Source("quant_config.json", (), "awq"),
    Source("config.json", ("quantization",), "mlx"),
)
CONFIG_FILES = tuple(dict.fromkeys(source.file for source in SOURCES))
