"""Known causes why a server does not start, from the logs of vLLM 0.8 to 0.33 and of `transformers serve`."""

from __future__ import annotations

import re

import msgspec

from quantchat.services.serving.programs import INSTALL_SERVING


class Cause(msgspec.Struct, frozen=True):
    """A known cause; the texts may name groups of the pattern as `{0}`."""

    code: str
    pattern: re.Pattern[str]
    title: str
    detail: str
    remedy: str


def _cause(code: str, pattern: str, title: str, detail: str = "", remedy: str = "") -> Cause:
    return Cause(code, re.compile(pattern), title, detail, remedy)


CAUSES = (
    _cause(
        "port-in-use",
        r"address already in use",
        "The port is taken",
        "Another program listens there",
        "Choose another with --port, or leave it out: a free one is found",
    ),
    _cause(
        "context-too-long",
        r"larger than the available KV cache memory \(([\d.]+ GiB)\).*?estimated maximum model length is (\d+)",
        "The context does not fit",
        "{0} are left for it beside the weights, which is room for {1} tokens",
        "Add --max-model-len {1}, or take more GPUs",
    ),
    _cause(
        "memory-taken",
        r"Free memory on device \S* ?\(([\d.]+)/([\d.]+) GiB\) on startup is less than desired",
        "A GPU has not enough free memory",
        "{0} of {1} GiB were free when vLLM looked; it asked for more, somebody else took some meanwhile",
        "End what holds it (nvidia-smi shows it), or ask for less with --gpu-memory-utilization",
    ),
    _cause(
        "out-of-memory",
        r"No available memory for the cache blocks|larger than the available KV cache memory",
        "There is no memory left for a conversation",
        "The weights take all that vLLM may have",
        "Take more GPUs (--tensor-parallel-size), a shorter --max-model-len, or a smaller model",
    ),
    _cause(
        "out-of-memory",
        r"CUDA out of memory|torch\.OutOfMemoryError|OutOfMemoryError: CUDA",
        "The GPU ran out of memory",
        "The model with its context is too large for what is free there",
        "Free memory on the GPU, take more GPUs, a shorter --max-model-len, or a lower --gpu-memory-utilization",
    ),
    _cause(
        "out-of-memory",
        r"DefaultCPUAllocator: can't allocate memory",
        "The host ran out of memory",
        "The model is too large for this machine",
        "Take a smaller model, or one with fewer bits",
    ),
    _cause(
        "quantization",
        r"in the model config \((\w[\w-]*)\) does not match the quantization method specified in the "
        r"`quantization` argument \((\w[\w-]*)\)",
        "The quantization of the folder is another one",
        "Its config says {0}, and vLLM was told {1}",
        "Leave --quantization to vLLM: look at the folder with `quantchat models show`",
    ),
    _cause(
        "quantization",
        r"Unknown quantization method:? '?(\w[\w-]*)|--quantization\S*: invalid choice: '(\w[\w-]*)'",
        "This vLLM does not know the quantization",
        "It knows no {0}",
        "Update vLLM where it is installed: pip install -U vllm",
    ),
    _cause(
        "quantization",
        r"Unsupported quantization config: (.+)|Cannot find the config file for (\w+)",
        "vLLM cannot use this quantization",
        "It says: {0}",
        "Quantize the model again: GPTQ with 4 bits, symmetric, groups of 128",
    ),
    _cause(
        "gpu-too-old",
        r"is not supported for the current GPU\. Minimum capability: (\d+)\. Current capability: (\d+)",
        "The GPU is too old for this quantization",
        "It needs compute capability {0}, and the card has {1} (in tenths)",
        "quantchat itself may have a kernel for it; `quantchat models show` tells",
    ),
    _cause(
        "dtype",
        r"torch\.(\w+) is not supported for quantization method (\w+)|(Bfloat16) is only supported on GPUs",
        "The dtype does not go with this quantization or GPU",
        "{0} is not possible here",
        "Add --dtype float16",
    ),
    _cause(
        "dtype",
        r"The model type '?(\w+)'? does not support float16",
        "The model does not run in float16",
        "Numbers of {0} overflow there",
        "Add --dtype bfloat16, which needs compute capability 8.0",
    ),
    _cause(
        "parallel",
        r"attention heads \((\d+)\) must be divisible by tensor parallel size \((\d+)\)",
        "The model cannot be divided so",
        "It has {0} attention heads, which {1} does not divide",
        "Choose another --tensor-parallel-size, or --pipeline-parallel-size, which divides the layers",
    ),
    _cause(
        "parallel",
        r"(?:input_size_per_partition|output_size_per_partition) = (\d+) is not divisible by [\w ]*= ?(\d+)",
        "The quantized matrices cannot be divided so",
        "A part of {0} features is not a multiple of {1}",
        "Choose a smaller --tensor-parallel-size, or --pipeline-parallel-size, which divides the layers; on one GPU "
        "try another kernel: add -- --quantization gptq",
    ),
    _cause(
        "no-gpu",
        r"Failed to infer device type|Found no NVIDIA driver|No CUDA GPUs are available|libcuda\.so\.1: cannot open",
        "vLLM finds no GPU",
        "The usual vLLM needs an NVIDIA GPU and its driver",
        "Serve without one: --backend transformers",
    ),
    _cause(
        "architecture",
        r"Model architectures? \[?'?(\w+)'?\]? (?:are|is) not supported|has no vLLM implementation",
        "This vLLM does not know the architecture",
        "It cannot run {0}",
        "Update vLLM where it is installed (pip install -U vllm), or use --backend transformers",
    ),
    _cause(
        "remote-code",
        r"trust_remote_code=True",
        "The model wants to run code of its own",
        "",
        "Read it first; --trust-remote-code lets the server run it",
    ),
    _cause(
        "context-too-long",
        r"max_model_len \((\d+)\) is greater than the derived max_model_len \(\w+=(\d+)",
        "The context is longer than the model's",
        "{0} tokens were asked for, and it was made for {1}",
        "Add --max-model-len {1}",
    ),
    _cause(
        "ray",
        r"Ray does not allocate any GPUs on the driver node|Cannot provide a placement group|No available node types",
        "The machines have not been joined, or are too few",
        "Ray has not the GPUs that the command asks for",
        "`ray status` shows who is there; `quantchat serve --print` says how to join them",
    ),
    _cause(
        "nccl",
        r"(ncclSystemError|ncclUnhandledCudaError|ncclInternalError|NCCL error)",
        "The GPUs cannot talk to each other",
        "NCCL says {0}",
        "Set NCCL_DEBUG=INFO to see why; in containers /dev/shm is often too small (--shm-size 8g)",
    ),
    _cause(
        "serving-extra",
        r"Missing dependencies for serving",
        "`transformers serve` lacks packages",
        "",
        f"Run {INSTALL_SERVING}",
    ),
    _cause(
        "serving-option",
        r"unrecognized arguments: (.+)|No such option: (\S+)",
        "The server does not know an option",
        "It is {0}",
        "Update the server, or leave the option out",
    ),
    _cause(
        "package-missing",
        r"ModuleNotFoundError: No module named '([\w.]+)'",
        "The server lacks a package",
        "Its environment has no {0}",
        "Install it where the server is: pip install {0}",
    ),
)
