"""The quantization formats that are recognised: one small definition per format, and where configs name them.

To add a format, add a definition to `FORMATS`. What the formats ask of the machine was read from the quantizers of
transformers 5.23 and from GPTQModel 7.7, which load them.
"""

from __future__ import annotations

from quantchat.catalog import bits
from quantchat.catalog.definitions import Format, Package, Refusal, Source, at
from quantchat.catalog.misfits import fp8_misfit, reordered

_NEEDS_GPU_PACKAGE = "its kernels are in a package that quantchat does not use and that needs a GPU"
_PROGRAM = "it needs the ExLlama program"
_UNPACKED = "It is unpacked to 16 bits while loading, and takes the memory of the unquantized model."
_OWN_PACKING = Refusal(
    "it was packed for one kernel; GPTQModel reads the common packing and packs for Marlin itself",
    "Use a version of this model in the common GPTQ or AWQ packing.",
)
_TORCHAO_TEXTS = (
    "int4_weight_only", "int8_weight_only", "int8_dynamic_activation_int8_weight", "float8_weight_only",
    "int8_dynamic_activation_int4_weight", "float8_dynamic_activation_float8_weight", "autoquant",
)  # fmt: skip
_RENAMED = Refusal("transformers takes no packing of this name", 'Set "version" to "gemm" in its quantization config.')
_BITS = at("bits", "w_bit", "wbits", "nbits")
_GROUP_SIZE = at("group_size", "q_group_size", "groupsize")
_BITS_AND_GROUP = {"bits": _BITS, "group_size": _GROUP_SIZE}
_GROUPS = "config_groups.*.weights"
_SCALES = (
    ".weight_scale_inv", ".weight_scale", ".weight_scale_2", ".weight_global_scale", ".input_scale",
    ".input_global_scale", ".weight_shape", ".weight_zero_point", ".weight_g_idx",
)  # fmt: skip

UNQUANTIZED = Format(method="none", title="Unquantized")
UNKNOWN = Format(method="unknown", counts=False)

FORMATS = (
    Format(
        method="gptq",
        names=("marlin", "gptqmodel"),
        title="GPTQ",
        settings={
            "bits": at("bits", "wbits", default=...),
            "group_size": at("group_size", "groupsize", default=128),
            "desc_act": at("desc_act", kind=bool, default=False),
            "sym": at("sym", kind=bool, default=True),
            "checkpoint_format": at("checkpoint_format", "format", kind=str, default="gptq"),
            "lm_head": at("lm_head", kind=bool, default=False),
        },
        kernels=True,
        variants={"marlin": _OWN_PACKING, "bitblas": _OWN_PACKING},
        packed=".qweight",
        beside=(".qzeros", ".scales", ".g_idx"),
    ),
    Format(
        method="awq",
        names=("llm-awq",),
        title="AWQ",
        settings={
            "bits": at("bits", "w_bit", default=...),
            "group_size": at("group_size", "q_group_size", default=128),
            "checkpoint_format": at("version", "checkpoint_format", "format", kind=str, default="gemm"),
            "lm_head": at("lm_head", kind=bool, default=False),
        },
        raw_names={"checkpoint_format": "version"},
        extras={"zero_point": at("zero_point", kind=bool, default=True)},
        kernels=True,
        variants={
            "marlin": _OWN_PACKING,
            "bitblas": _OWN_PACKING,
            **dict.fromkeys(("exllama", "exllamav2", "exllama_v2"), _RENAMED),
        },
        packed=".qweight",
        beside=(".qzeros", ".scaled_zeros", ".scales"),
    ),
    Format(
        method="compressed-tensors",
        names=("compressed_tensors", "sparseml"),
        title="compressed-tensors",
        settings={
            "bits": at(f"{_GROUPS}.num_bits"),
            "group_size": at(f"{_GROUPS}.group_size"),
            "sym": at(f"{_GROUPS}.symmetric", kind=bool),
            "checkpoint_format": at("format", kind=str),
        },
        package=Package("compressed-tensors", "0.15.0"),
        note=_UNPACKED,
        variants=dict.fromkeys(
            ("marlin-24", "sparse-24-bitmask", "sparse-bitmask"),
            Refusal("compressed-tensors no longer reads this packing"),
        ),
        unpacked=True,
        packed=".weight_packed",
        beside=_SCALES,
        signs=(".weight_packed",),
        misfit=reordered,
    ),
    Format(
        method="bitsandbytes",
        names=("bitsandbytes_4bit", "bitsandbytes_8bit", "bnb"),
        title="bitsandbytes",
        settings={"checkpoint_format": at("bnb_4bit_quant_type", kind=str)},
        bits=bits.bitsandbytes,
        package=Package("bitsandbytes", "0.46.1"),
        counts=False,
        signs=(".weight.absmax", ".weight.quant_state.bitsandbytes__nf4", ".weight.quant_state.bitsandbytes__fp4"),
    ),
    Format(
        method="fp8",
        names=("finegrained_fp8", "mxfp8"),
        title="FP8",
        settings={"group_size": at("weight_block_size.1"), "checkpoint_format": at("fmt", kind=str)},
        bits=bits.always(8),
        note=_UNPACKED,
        unpacked=True,
        beside=_SCALES,
        signs=(".weight_scale_inv",),
        described=True,
        misfit=fp8_misfit,
    ),
    Format(method="fbgemm_fp8", title="FBGEMM FP8", bits=bits.always(8), cannot=_NEEDS_GPU_PACKAGE, beside=_SCALES),
    Format(
        method="hqq",
        title="HQQ",
        settings={
            "bits": at("quant_config.weight_quant_params.nbits", "weight_quant_params.nbits", "nbits"),
            "group_size": at("quant_config.weight_quant_params.group_size", "weight_quant_params.group_size"),
        },
        cannot="transformers 5 does not read its packed weights",
        counts=False,
        signs=(".W_q",),
    ),
    Format(
        method="auto-round",
        names=("intel/auto-round", "autoround", "auto_round"),
        title="AutoRound",
        settings=_BITS_AND_GROUP | {"sym": at("sym", kind=bool), "checkpoint_format": at("packing_format", kind=str)},
        cannot="only its export to plain GPTQ or AWQ does",
        packed=".qweight",
        beside=(".qzeros", ".scales", ".g_idx"),
    ),
    Format(
        method="aqlm",
        title="AQLM",
        bits=bits.aqlm,
        package=Package("aqlm[cpu,gpu]", "1.1.6"),
        note="With several codebooks it needs a GPU.",
        counts=False,
        signs=(".codebooks",),
    ),
    Format(
        method="torchao",
        title="torchao",
        settings={
            "group_size": at("quant_type.default._data.group_size", "quant_type_kwargs.group_size"),
            "checkpoint_format": at("quant_type.default._data.int4_packing_format._data", "quant_type", kind=str),
        },
        bits=bits.by_name(("quant_type", "default", "_type"), ("quant_type",)),
        note="Its 4-bit weights need a GPU.",
        variants={
            **dict.fromkeys(_TORCHAO_TEXTS, Refusal("transformers 5 no longer reads settings of this old kind")),
            **dict.fromkeys(
                ("plain", "preshuffled"), Refusal("its kernels are in a package that quantchat does not use")
            ),
            "plain_int32": Refusal("it is packed for Intel's GPUs"),
            "opaque": Refusal("torchao no longer reads its packing"),
        },
        counts=False,
    ),
    Format(
        method="mxfp4",
        title="MXFP4",
        bits=bits.always(4),
        note=_UNPACKED,
        unpacked=True,
        counts=False,
        signs=("_blocks",),
        described=True,
    ),
    Format(
        method="bitnet",
        title="BitNet",
        settings={"checkpoint_format": at("linear_class", kind=str)},
        bits=bits.always(2),
        note="It is computed without a kernel of its own, slowly.",
        unpacked_variants=("autobitlinear",),
        packed=".weight",
        beside=(".weight_scale",),
    ),
    Format(method="gemma", title="Gemma", settings={"bits": at("num_bits")}, counts=False),
    Format(
        method="mlx",
        title="MLX",
        settings=_BITS_AND_GROUP,
        cannot="it is made for Apple's processors",
        counts=False,
    ),
    Format(
        method="quip",
        names=("quip#", "quip_sharp"),
        title="QuIP#",
        settings={"checkpoint_format": at("codebook", kind=str)},
        bits=bits.quip,
        cannot="transformers does not read it; it needs the QuIP# program",
        counts=False,
        signs=(".Qidxs",),
    ),
    Format(method="exl2", title="EXL2", settings=_BITS_AND_GROUP, cannot=_PROGRAM, counts=False, signs=(".q_invperm",)),
    Format(method="exl3", title="EXL3", settings=_BITS_AND_GROUP, cannot=_PROGRAM, counts=False, signs=(".trellis",)),
    Format(
        method="nvfp4",
        title="NVFP4",
        bits=bits.always(4),
        cannot="transformers does not load weights packed so",
        counts=False,
    ),
    Format(
        method="modelopt",
        names=("modelopt_fp4", "modelopt_fp8"),
        title="ModelOpt",
        settings={
            "group_size": at("group_size", "quantization.group_size"),
            "checkpoint_format": at("quant_algo", "quantization.quant_algo", kind=str),
        },
        bits=bits.by_name(("quant_algo",), ("quantization", "quant_algo")),
        cannot="transformers does not load weights packed so",
        counts=False,
    ),
    Format(
        method="gguf",
        title="GGUF",
        package=Package("llama-cpp-python", "0.3.30"),
        note="llama.cpp runs it as it is; through transformers it would be unpacked to 16 bits, and be large and slow.",
        counts=False,
    ),
    Format(method="eetq", title="EETQ", bits=bits.always(8), cannot=_NEEDS_GPU_PACKAGE, counts=False),
    *(
        Format(method=method, names=names, title=title, settings=_BITS_AND_GROUP, cannot=why, counts=False)
        for method, title, why, names in (
            ("quanto", "Quanto", "transformers does not read its packed weights", ()),
            ("higgs", "HIGGS", _NEEDS_GPU_PACKAGE, ()),
            ("vptq", "VPTQ", _NEEDS_GPU_PACKAGE, ()),
            ("spqr", "SpQR", _NEEDS_GPU_PACKAGE, ()),
            ("fp_quant", "FP-Quant", _NEEDS_GPU_PACKAGE, ()),
            ("fouroversix", "Four Over Six", _NEEDS_GPU_PACKAGE, ("4over6",)),
            ("quark", "Quark", "it needs a package that quantchat does not use", ()),
            ("sinq", "SINQ", "it needs a package that quantchat does not use", ()),
            ("metal", "Metal", "it is made for Apple's processors", ()),
            ("qqq", "QQQ", "there is no kernel for it in quantchat", ()),
            ("paroquant", "ParoQuant", "there is no kernel for it in quantchat", ()),
            ("bitblas", "BitBLAS", "there is no kernel for it in quantchat", ()),
        )
    ),
)

BY_NAME = {name: entry for entry in FORMATS for name in (entry.method, *entry.names)}

TRANSFORMERS_SOURCES = (
    Source("config.json", ("quantization_config",)),
    Source("config.json", ("text_config", "quantization_config")),
)
"""Where transformers looks itself."""
SOURCES = (
    *TRANSFORMERS_SOURCES,
    Source("config.json", ("compression_config",), "compressed-tensors"),
    Source("quantize_config.json", (), "gptq"),
    Source("quant_config.json", (), "awq"),
    Source("hf_quant_config.json", (), "modelopt"),
    Source("config.json", ("quip_params",), "quip"),
    Source("config.json", ("quantization",), "mlx"),
)
CONFIG_FILES = tuple(dict.fromkeys(source.file for source in SOURCES))
