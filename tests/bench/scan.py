"""Scanning 1,000 model folders with 200,000 files: seconds, memory, and for how long the event loop is held up.

The tree is made in a temporary folder (weights are sparse files; making it is not measured): 4-bit Llamas of 32 layers
in four shards with an index, of 40 owners with sizes of their own, a third of them in a hub cache, where all files are
links. Each scan runs in a fresh program that holds nothing but the event loop and the scanner, so late imports count.
Cold: there is no index. Warm: a program that starts again. Again: the same program looks for changes, as it does every
few seconds. The files are in the page cache. Each figure is the median of several programs.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import resource
import shutil
import statistics
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench._report import Figure, parser, report

FOLDERS = 1000
FILES = 200
SHARDS = 4
LAYERS = 32
TICK = 0.001
LOOK = 40
"""Ticks between two looks at the memory of the readers, which cost as much as reading a folder."""
MIB = 1024**2
CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 4096,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "max_position_embeddings": 131072,
    "vocab_size": 128256,
    "torch_dtype": "float16",
    "quantization_config": {
        "bits": 4,
        "checkpoint_format": "gptq",
        "desc_act": False,
        "group_size": 128,
        "lm_head": False,
        "quant_method": "gptq",
        "sym": True,
    },
}
OWNERS = 40
"""The models of one are alike, as those that are trained from one model; no two owners have the same sizes."""


# The tree


def inner_size(owner: int) -> int:
    return 14336 + 256 * owner


def modules(owner: int) -> dict[str, tuple[int, int]]:
    inner = inner_size(owner)
    return {
        "self_attn.q_proj": (4096, 4096),
        "self_attn.k_proj": (4096, 1024),
        "self_attn.v_proj": (4096, 1024),
        "self_attn.o_proj": (4096, 4096),
        "mlp.gate_proj": (4096, inner),
        "mlp.up_proj": (4096, inner),
        "mlp.down_proj": (inner, 4096),
    }


def tensors(owner: int, shard: int) -> Iterator[tuple[str, str, tuple[int, ...]]]:
    """Name, type and shape of what one shard holds."""
    if shard == 0:
        yield "model.embed_tokens.weight", "F16", (128256, 4096)
    if shard == SHARDS - 1:
        yield "lm_head.weight", "F16", (128256, 4096)
        yield "model.norm.weight", "F16", (4096,)
    for layer in range(shard * LAYERS // SHARDS, (shard + 1) * LAYERS // SHARDS):
        start = f"model.layers.{layer}"
        for norm in ("input_layernorm", "post_attention_layernorm"):
            yield f"{start}.{norm}.weight", "F16", (4096,)
        for name, (inputs, outputs) in modules(owner).items():
            yield f"{start}.{name}.qweight", "I32", (inputs // 8, outputs)
            yield f"{start}.{name}.qzeros", "I32", (inputs // 128, outputs // 8)
            yield f"{start}.{name}.scales", "F16", (inputs // 128, outputs)
            yield f"{start}.{name}.g_idx", "I32", (inputs,)


def shard_name(shard: int) -> str:
    return f"model-{shard + 1:05d}-of-{SHARDS:05d}.safetensors"


def shard_bytes(owner: int, shard: int) -> tuple[bytes, int]:
    """The header of a shard, and the size of the whole file."""
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, dtype, shape in tensors(owner, shard):
        size = 2 if dtype == "F16" else 4
        for length in shape:
            size *= length
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [end, end + size]}
        end += size
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text, 8 + len(text) + end


def small_files(owner: int) -> dict[str, bytes]:
    """The files beside the weights, as large as those of a Llama 3."""
    added = {
        str(128000 + number): {"content": f"<|reserved_special_token_{number}|>", "lstrip": False, "special": True}
        for number in range(256)
    }
    placed = {name: shard_name(shard) for shard in range(SHARDS) for name, _, _ in tensors(owner, shard)}
    tokenizer = {"added_tokens_decoder": added, "chat_template": "{{ messages }}" * 100, "eos_token": "<|eot_id|>"}
    return {
        "config.json": json.dumps(CONFIG | {"intermediate_size": inner_size(owner)}).encode(),
        "generation_config.json": b'{"do_sample": true, "temperature": 0.6}',
        "tokenizer_config.json": json.dumps(tokenizer).encode(),
        "special_tokens_map.json": b'{"eos_token": "<|eot_id|>"}',
        "model.safetensors.index.json": json.dumps({"metadata": {}, "weight_map": placed}).encode(),
        "README.md": b"# A model\n" * 100,
    }


def make_tree(root: Path) -> None:
    """Make the models; small files are hard links to one, weights are files of their own."""
    for owner in range(OWNERS):
        shards = [shard_bytes(owner, shard) for shard in range(SHARDS)]
        source = root / "source" / str(owner)
        source.mkdir(parents=True)
        for name, content in small_files(owner).items():
            (source / name).write_bytes(content)
        for number in range(owner, FOLDERS, OWNERS):
            if number % 3:
                make_model(root / "models" / f"owner-{owner}" / f"Llama-{number}-GPTQ", source, shards)
            else:
                make_repository(root / "hub" / f"models--owner-{owner}--Llama-{number}-GPTQ", source, shards)
    for place, _, _ in os.walk(root):
        # What changed just now would be read again.
        os.utime(place, (time.time() - 1000,) * 2)


def make_model(folder: Path, source: Path, shards: list[tuple[bytes, int]]) -> None:
    folder.mkdir(parents=True)
    for file in source.iterdir():
        os.link(file, folder / file.name)
    for shard, (header, size) in enumerate(shards):
        with open(folder / shard_name(shard), "wb") as weights:
            weights.write(header)
            weights.truncate(size)
    (folder / "tokenizer.json").touch()
    os.truncate(folder / "tokenizer.json", 9_000_000)
    for number in range(FILES - len(list(source.iterdir())) - SHARDS - 1):
        os.close(os.open(folder / f"sample-{number:03d}.png", os.O_CREAT | os.O_WRONLY, 0o644))


def make_repository(repository: Path, source: Path, shards: list[tuple[bytes, int]]) -> None:
    commit = "0123456789abcdef" * 2 + "01234567"
    make_model(repository / "blobs", source, shards)
    snapshot = repository / "snapshots" / commit
    snapshot.mkdir(parents=True)
    for blob in os.listdir(repository / "blobs"):
        os.symlink(f"../../blobs/{blob}", snapshot / blob)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(commit)


# One program


async def scan_once(again: bool) -> dict[str, float]:
    """Scan as the screen does; return seconds and the longest time that the loop did not come round."""
    from quantchat.services.scanning import Scanner

    scanner = Scanner(lambda fact: None, [Path(os.environ["SCAN_TREE"]) / "models"])
    if again:
        await scanner.scan()
    before = memory("VmRSS")
    longest, readers, ticks = 0.0, 0.0, 0
    begun, used = time.perf_counter(), cpu_seconds()
    scan = asyncio.create_task(scanner.scan())
    while not scan.done():
        asleep = time.perf_counter()
        await asyncio.sleep(TICK)
        longest = max(longest, time.perf_counter() - asleep - TICK)
        ticks += 1
        if ticks % LOOK == 0:
            readers = max(readers, memory_of_readers())
    seconds, used = time.perf_counter() - begun, cpu_seconds() - used
    assert len(scanner.models) == FOLDERS, len(scanner.models)
    assert all(model.loadable and model.weight_bytes for model in scanner.models), scanner.models[0].problems
    return {
        "seconds": seconds,
        "cpu": used,
        "blocked": longest * 1000,
        "grown": memory("VmHWM") - before,
        "readers": readers,
        "whole": memory("VmHWM"),
    }


def cpu_seconds() -> float:
    """What this process and its readers have computed, which a busy machine changes less than how long it took."""
    usage = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in usage)


def memory(name: str, process: str = "self") -> float:
    """A line of a process's status, in MiB."""
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith(name)), 0.0)


def memory_of_readers() -> float:
    """What is the readers' own: the interpreter and its libraries are in memory once, for all of its processes."""
    total = 0.0
    for thread in Path("/proc/self/task").iterdir():
        with contextlib.suppress(OSError):
            total += sum(memory("RssAnon", child) for child in (thread / "children").read_text().split())
    return total


def measure(tree: Path, *, again: bool = False, cold: bool = False) -> dict[str, float]:
    """Scan in a fresh program."""
    home = tree / "home"
    if cold:
        shutil.rmtree(home, ignore_errors=True)
    env = os.environ | {"QUANTCHAT_HOME": str(home), "HF_HUB_CACHE": str(tree / "hub"), "SCAN_TREE": str(tree)}
    # From compiled files, as an installed quantchat is; a developer's environment may forbid to write them.
    env |= {"PYTHONDONTWRITEBYTECODE": "", "PYTHONPYCACHEPREFIX": str(tree / "compiled")}
    command = [sys.executable, __file__, "--one", *(["--again"] if again else [])]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=True)
    figures: dict[str, float] = json.loads(done.stdout)
    return figures


def median(runs: list[dict[str, float]], name: str) -> float:
    return statistics.median(run[name] for run in runs)


def figures(rounds: int) -> Iterator[Figure]:
    with tempfile.TemporaryDirectory(prefix="quantchat-scan-") as folder:
        tree = Path(folder)
        make_tree(tree)
        # The system is not to write 200,000 new files while it is measured.
        os.sync()
        measure(tree, cold=True)
        cold = [measure(tree, cold=True) for _ in range(rounds)]
        warm = [measure(tree) for _ in range(rounds)]
        again = [measure(tree, again=True) for _ in range(rounds)]
        index = sum(file.stat().st_size for file in (tree / "home" / "cache").iterdir()) / MIB
    yield Figure("cold scan", median(cold, "seconds"), "s", 1.0)
    yield Figure("cold scan: computed by all processes", median(cold, "cpu"), "s")
    yield Figure("warm scan", median(warm, "seconds"), "s", 0.15)
    yield Figure("warm scan: computed", median(warm, "cpu"), "s")
    yield Figure("the same program looks again", median(again, "seconds"), "s")
    yield Figure("cold: loop held up", median(cold, "blocked"), "ms", 20)
    yield Figure("warm: loop held up", median(warm, "blocked"), "ms", 20)
    yield Figure("again: loop held up", median(again, "blocked"), "ms", 20)
    yield Figure(
        "cold: this process grows, and all readers",
        median(cold, "grown") + median(cold, "readers"),
        "MiB",
        60,
    )
    yield Figure("cold: this process grows", median(cold, "grown"), "MiB")
    yield Figure("cold: all readers", median(cold, "readers"), "MiB")
    yield Figure("warm: this process grows", median(warm, "grown"), "MiB")
    yield Figure("index", index, "MiB")


def main() -> None:
    options: argparse.ArgumentParser = parser(__doc__ or "")
    options.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    options.add_argument("--again", action="store_true", help=argparse.SUPPRESS)
    chosen = options.parse_args()
    if chosen.one:
        print(json.dumps(asyncio.run(scan_once(chosen.again))))
    else:
        report(list(figures(3 if chosen.quick else 9)), as_json=chosen.json)


if __name__ == "__main__":
    main()
