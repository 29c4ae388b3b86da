"""Lines to copy: how a model is loaded by plain transformers and by vLLM, without quantchat.

Each `Snippet` has either a text to run or a reason why there is none.
"""

from __future__ import annotations

import glob
import math
import os
import shlex
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from pprint import pformat
from typing import Literal

import msgspec

from quantchat.domain.models import ModelInfo, QuantSpec
from quantchat.services.serving import vllm

Device = Literal["cpu", "cuda"]

ASK = """\
messages = [{"role": "user", "content": "What is the capital of France?"}]
inputs = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_tensors="pt", return_dict=True)"""
ASK_PLAIN = 'inputs = tokenizer("The capital of France is", return_tensors="pt")'
ANSWER = """\
output = model.generate(**inputs.to(model.device), max_new_tokens=100)
print(tokenizer.decode(output[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True))"""

PACKAGES: Mapping[str, str] = {
    "gptq": "transformers accelerate gptqmodel optimum",
    "awq": "transformers accelerate gptqmodel",
    "gguf": "transformers accelerate gguf",
    "none": "transformers accelerate",
}
CLASSES = (
    ("ForConditionalGeneration", "AutoModelForImageTextToText"),
    ("ForSequenceClassification", "AutoModelForSequenceClassification"),
    ("ForTokenClassification", "AutoModelForTokenClassification"),
    ("ForQuestionAnswering", "AutoModelForQuestionAnswering"),
    ("ForMaskedLM", "AutoModelForMaskedLM"),
)
"""Ends of class names in config.json, and the class of transformers that loads them."""
WEIGHTS = "*.safetensors"
UNPACKED = ("fp8", "mxfp4", "compressed-tensors")
"""Methods that the engine has unpacked on load (`engine.packing.UNPACKED_METHODS`)."""
SEQUENCE_TO_SEQUENCE = ("t5", "mt5", "umt5", "bart", "mbart", "pegasus", "marian", "longt5", "switch_transformers")

OUR_OWN = frozenset(
    {
        "adapter",
        "draft-model",
        "embedding-model",
        "format-cannot-run",
        "format-cannot-run-so",
        "gguf-only",
        "not-a-chat-model",
        "package-missing",
        "quantization-unknown",
        "remote-code-needed",
        "vision-model",
    }
)
"""Problems that keep a model from running in quantchat, and not everywhere."""
OLD_TRANSFORMERS = "architecture-unknown"


class Snippet(msgspec.Struct, frozen=True, kw_only=True):
    """Something to copy, or why there is nothing.

    Attributes:
        title: What it is for.
        language: Of the text.
        text: To be run as it stands.
        reason: Why there is no text; one line.
    """

    title: str
    language: Literal["python", "sh"]
    text: str = ""
    reason: str = ""


def snippets(model: ModelInfo, *, device: Device, context: int | None = None) -> tuple[Snippet, ...]:
    """Return what to copy for a model.

    Args:
        model: The model.
        device: Where it would be loaded on this machine.
        context: Tokens to serve at most, such as the largest context that fits; the model's own window if None.
    """
    own = (llama_snippet(model, device, context),) if model.container == "gguf" else ()
    return *own, transformers_snippet(model, device), vllm_snippet(model, context)


# llama.cpp


def llama_snippet(model: ModelInfo, device: Device, context: int | None = None) -> Snippet:
    """Write a script that runs a GGUF file as quantchat does."""
    if reason := unfit(model) or _unnamed(model):
        return Snippet(title="llama.cpp", language="python", reason=reason)
    return Snippet(title="llama.cpp", language="python", text="\n".join(_llama(model, device, context)))


def _llama(model: ModelInfo, device: Device, context: int | None) -> Iterator[str]:
    build = 'CMAKE_ARGS="-DGGML_CUDA=on" ' if device == "cuda" else ""
    yield f"# {build}pip install llama-cpp-python"
    yield "from llama_cpp import Llama"
    yield ""
    yield "model = Llama("
    yield f"    {model.path!r},"
    yield f"    n_ctx={min(filter(None, (context, model.context_window)), default=4096)},"
    yield from ["    n_gpu_layers=-1,"] if device == "cuda" else []
    yield "    verbose=False,"
    yield ")"
    yield ASK.splitlines()[0]
    yield "answer = model.create_chat_completion(messages, max_tokens=256)"
    yield 'print(answer["choices"][0]["message"]["content"])'


# transformers


def transformers_snippet(model: ModelInfo, device: Device) -> Snippet:
    """Write a script that loads a model with transformers and asks it something."""
    if reason := unfit(model) or _unloadable(model) or _unnamed(model):
        return Snippet(title="transformers", language="python", reason=reason)
    text = "\n".join(_gptqmodel(model, device) if _needs_gptqmodel(model) else _plain(model, device))
    return Snippet(title="transformers", language="python", text=text)


def _unloadable(model: ModelInfo) -> str:
    if model.kind == "adapter":
        return "It is an adapter: peft loads it on top of its base model (AutoPeftModelForCausalLM)."
    if model.verdict.state == "cannot" and model.container != "gguf":
        return f"{model.quant.label()}: {model.verdict.reason}."
    old = [problem for problem in model.errors if problem.code == OLD_TRANSFORMERS]
    return f"{old[0].cause} {old[0].remedy}" if old else ""


def unfit(model: ModelInfo) -> str:
    """Say why nobody could load a folder as it is."""
    if model.container == "server":
        return f"It is on the server {model.server}, and its weights are not here."
    broken = [problem for problem in model.errors if problem.code not in OUR_OWN | {OLD_TRANSFORMERS}]
    return f"{broken[0].cause} {broken[0].remedy}" if broken else ""


def _plain(model: ModelInfo, device: Device) -> Iterator[str]:
    quant, gguf = model.quant, model.container == "gguf"
    path = str(Path(model.path).parent) if gguf else model.path
    own_config = [] if gguf else list(_own_config(quant, device))
    loader, speaks = _class_of(model)
    reader = "AutoProcessor" if loader == "AutoModelForImageTextToText" else "AutoTokenizer"
    yield from _head(model, device, [reader, loader, *(["AutoConfig"] if own_config else []), *_configs(quant, device)])
    yield f"path = {path!r}"
    named = f", gguf_file={Path(model.path).name!r}" if gguf else ""
    yield f"tokenizer = {reader}.from_pretrained(path{named})"
    yield from own_config
    yield f"model = {loader}.from_pretrained("
    yield "    path,"
    if gguf:
        yield "    # This unpacks the weights to 16 bits, where the architecture can be: it takes several times"
        yield "    # the memory, and is slower than llama.cpp, which runs the file as it is."
        yield f"    gguf_file={Path(model.path).name!r},"
    yield from ["    config=config,"] if own_config else []
    yield f"    dtype={_dtype(model, device)},"
    # Named: "auto" without a GPU chooses a kernel that needs one, and fails at the first token.
    yield '    device_map={"": "cpu"},' if device == "cpu" else '    device_map={"": "cuda:0"},'
    if backend := _backend(quant, device):
        yield f'    quantization_config=GPTQConfig(bits={quant.bits}, backend="{backend}"),'
    yield ")"
    yield from _conversation(model) if speaks else ()


def _class_of(model: ModelInfo) -> tuple[str, bool]:
    """Return the class that loads a model, and whether it generates text."""
    architecture = model.architecture or ""
    if model.model_type in SEQUENCE_TO_SEQUENCE:
        return "AutoModelForSeq2SeqLM", False
    if model.kind == "embedding":
        return "AutoModel", False
    for ending, loader in CLASSES:
        if architecture.endswith(ending) and not (model.kind == "chat" and loader == "AutoModelForImageTextToText"):
            return loader, False
    return ("AutoModelForCausalLM", True) if model.kind in ("chat", "draft") else ("AutoModel", False)


def _head(model: ModelInfo, device: Device, names: list[str]) -> Iterator[str]:
    install = model.verdict.install.removeprefix("pip install ")
    packages = PACKAGES.get("gguf" if model.container == "gguf" else model.quant.method, PACKAGES["none"])
    wanted = model.verdict.state == "with" and model.container != "gguf"
    extra = install if wanted and install != model.verdict.install else ""
    yield f"# pip install {packages} {extra}".rstrip()
    if model.remote_code:
        yield f"# It may want to run code of its own ({code_files(model)}): read that before trust_remote_code=True."
    if model.quant.method in ("gptq", "awq"):
        yield from _few_cores(device)
    if _dtype(model, device).startswith("torch."):
        yield "import torch"
    yield f"from transformers import {', '.join(sorted(set(names)))}"
    yield ""


def _few_cores(device: Device) -> Iterator[str]:
    if device == "cpu" and (os.cpu_count() or 1) <= 2:
        yield "import os"
        yield ""
        yield 'os.environ["GPTQMODEL_CPU_WORKERS"] = "2"  # its thread pool wants two, and this machine has few cores'
        yield ""


def code_files(model: ModelInfo) -> str:
    """Name the files of a model's own code."""
    return ", ".join(repr(name)[1:-1] for name in model.files[:3]) or "its .py files"


def _dtype(model: ModelInfo, device: Device) -> str:
    if device == "cpu":
        return "torch.bfloat16"
    return "torch.float16" if model.quant.method in ("gptq", "awq") else '"auto"'


def _backend(quant: QuantSpec, device: Device) -> str:
    # What is chosen without it is 12 times slower.
    return "gptq_torch_int8" if device == "cpu" and quant.method == "gptq" and quant.bits == 8 else ""


def _configs(quant: QuantSpec, device: Device) -> list[str]:
    return ["GPTQConfig"] if _backend(quant, device) else []


def _own_config(quant: QuantSpec, device: Device) -> Iterator[str]:
    """Say what transformers is to be told of a quantization, as `engine.packing` does."""
    changes = {"quant_method": quant.method, "dequantize": True} if quant.method in UNPACKED and device == "cpu" else {}
    if quant.source not in ("", "config.json") and quant.method != "none":
        yield f"# transformers does not read {_place(quant)}, and would load random weights without this."
        yield "config = AutoConfig.from_pretrained(path)"
        yield f"config.quantization_config = {_literal({'quant_method': quant.method, **quant.raw, **changes})}"
    elif changes:
        yield "# Unpacked to 16 bits: there are kernels for GPUs only."
        yield "config = AutoConfig.from_pretrained(path)"
        yield f"config.quantization_config |= {_literal(changes)}"


def _place(quant: QuantSpec) -> str:
    return "this from the tensors" if quant.source == "tensors" else quant.source


def _literal(settings: Mapping[str, object]) -> str:
    # Numbers that are none, such as Infinity, have no literal.
    plain = {key: value for key, value in settings.items() if not isinstance(value, float) or math.isfinite(value)}
    return pformat(plain, width=100, sort_dicts=False)


def _conversation(model: ModelInfo) -> Iterator[str]:
    yield ""
    yield ASK if model.has_chat_template else ASK_PLAIN
    yield ANSWER


def wrong_untold(model: ModelInfo, device: Device) -> str:
    """Say why transformers does not load a model rightly where nobody can tell it more than the path."""
    if reason := unfit(model) or _unloadable(model) or _unnamed(model):
        return reason
    if _needs_gptqmodel(model):
        return "transformers by itself loads this one wrongly; GPTQModel loads it rightly."
    if model.container != "gguf" and any(_own_config(model.quant, device)):
        return "transformers must be told more of this one than config.json says, or its weights would be wrong."
    return ""


def _needs_gptqmodel(model: ModelInfo) -> bool:
    """Whether transformers loads it wrongly, by its names or what else is seen (`engine.loader.GPTQMODEL_CASES`)."""
    quant = model.quant
    return quant.method in ("gptq", "awq") and (quant.lm_head or quant.dynamic or not _is_there(model, "model"))


def _unnamed(model: ModelInfo) -> str:
    """Say that no library finds the weights by their name; transformers and GPTQModel 7.7 look for these alone."""
    weights = [os.path.basename(path) for path in sorted(glob.glob(os.path.join(glob.escape(model.path), WEIGHTS)))]
    quant = model.quant
    known = [f"gptq_model-{quant.bits}bit-{quant.group_size}g"] if quant.method in ("gptq", "awq") else []
    if not weights or any(_is_there(model, stem) for stem in ("model", *known)):
        return ""
    if len(weights) == 1:
        return f"transformers does not find {weights[0]!r} by its name; rename it to model.safetensors."
    return f"transformers does not find {weights[0]!r} and {len(weights) - 1} more: an index of them is missing."


def _is_there(model: ModelInfo, stem: str) -> bool:
    names = (f"{stem}.safetensors", f"{stem}.safetensors.index.json")
    return any(os.path.exists(os.path.join(model.path, name)) for name in names)


def _gptqmodel(model: ModelInfo, device: Device) -> Iterator[str]:
    yield f"# pip install {PACKAGES['gptq']}"
    yield "# transformers by itself loads this one wrongly."
    yield from _few_cores(device)
    yield "import torch"
    yield "from gptqmodel import GPTQModel"
    yield "from transformers import AutoTokenizer"
    yield ""
    yield f"path = {model.path!r}"
    yield "tokenizer = AutoTokenizer.from_pretrained(path)"
    where = "cpu" if device == "cpu" else "cuda:0"
    yield f'model = GPTQModel.load(path, device="{where}", dtype={_dtype(model, device)}).model'
    yield from _conversation(model)


# vLLM


def vllm_snippet(model: ModelInfo, context: int | None = None) -> Snippet:
    """Write the command that serves a model with vLLM."""
    if reason := unfit(model) or vllm.refusal(model):
        return Snippet(title="vLLM", language="sh", reason=reason)
    return Snippet(title="vLLM", language="sh", text="\n".join(_serve(model, context)))


def _serve(model: ModelInfo, context: int | None) -> Iterator[str]:
    if plugin := vllm.plugin(model):
        yield f"# pip install {plugin}"
    if model.container == "gguf":
        yield f"# {vllm.BASE_MODEL}: what it was made from, for the tokenizer"
    if model.remote_code:
        yield f"# It may want to run code of its own ({code_files(model)}): read that before --trust-remote-code."
    yield shell_line(["vllm", "serve", model.path, *vllm.model_options(model, context)])


def shell_line(words: Iterable[str]) -> str:
    """Write a command for a POSIX shell."""
    return " ".join(map(shell_quoted, words))


def shell_quoted(text: str) -> str:
    """Quote a word for a POSIX shell; what cannot be seen is written in the escapes of bash and zsh."""
    if text.isprintable():
        return shlex.quote(text)
    escaped = "".join(_escaped(letter) for letter in text)
    return f"$'{escaped}'"


def _escaped(letter: str) -> str:
    if letter in "'\\":
        return f"\\{letter}"
    if letter.isprintable():
        return letter
    return "".join(f"\\x{byte:02x}" for byte in letter.encode("utf-8", "surrogateescape"))
