"""Makes the tiny models of the engine tests: a random Llama with a real tokenizer, plain, GPTQ and AWQ.

Run as a program (`python tiny.py OUTPUT`), as quantizing prints and warns; the result is cached outside the checkout.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path

RECIPE = 2
"""Raise it when the models below change."""
LIBRARIES = ("torch", "transformers", "gptqmodel")
WINDOW = 256
HIDDEN = 128
TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}<|{{ message['role'] }}|>{{ message['content'] }}</s>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
TEXTS = [
    "The quick brown fox jumps over the lazy dog while the river runs to the sea and nobody is looking.",
    "A model answers in pieces; each piece is a token, and each token is a number in a small vocabulary.",
    "Cats, dogs, rivers, numbers: everything that can be counted will be counted again tomorrow morning.",
    "Zwölf Boxkämpfer jagen Viktor quer über den großen Sylter Deich — 日本語もあります 🙂 and more text.",
]


def folder() -> Path:
    """Return the cached folder with `dense`, `gptq` and `awq`; make it if it is not there."""
    versions = "-".join(metadata.version(name).replace("+", "_") for name in LIBRARIES)
    target = Path.home() / ".cache" / "quantchat-tests" / f"tiny-{RECIPE}-{versions}"
    target.parent.mkdir(parents=True, exist_ok=True)
    with target.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not target.is_dir():
            _make_apart(target)
    return target


def _make_apart(target: Path) -> None:
    """Make the models in a process of their own, whole or not at all."""
    partial = target.with_name(f"{target.name}.{os.getpid()}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    made = subprocess.run(
        [sys.executable, __file__, str(partial)],
        cwd=target.parent,
        env=os.environ | {"GPTQMODEL_CPU_WORKERS": "2"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert made.returncode == 0, made.stdout[-2000:] + made.stderr[-4000:]
    partial.rename(target)


def make(output: Path) -> None:
    output.mkdir(parents=True)
    make_dense(output / "dense")
    quantize(output / "dense", output / "gptq", "gptq")
    quantize(output / "dense", output / "awq", "awq")


def make_dense(target: Path) -> None:
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    tokenizer = make_tokenizer()
    torch.manual_seed(7)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=HIDDEN,
        intermediate_size=2 * HIDDEN,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=WINDOW,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        # Larger than the usual 0.02: logits far enough apart for greedy text that rounding does not change.
        initializer_range=0.2,
    )
    model = LlamaForCausalLM(config)
    # It never ends an answer by itself: which of random tokens is the likeliest differs from one CPU to the next.
    with torch.no_grad():
        model.lm_head.weight[tokenizer.eos_token_id] = 0
    model.to(torch.bfloat16).save_pretrained(target)
    tokenizer.save_pretrained(target)


def make_tokenizer():
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    specials = ["<s>", "</s>", "<|system|>", "<|user|>", "<|assistant|>"]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=384, special_tokens=specials, initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet())
    )
    tokenizer.train_from_iterator(TEXTS, trainer)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<s>",
        eos_token="</s>",
        additional_special_tokens=specials[2:],
    )
    fast.chat_template = TEMPLATE
    return fast


def quantize(source: Path, target: Path, method: str) -> None:
    from gptqmodel import GPTQModel
    from gptqmodel.quantization.config import AWQConfig, GPTQConfig

    kind = GPTQConfig if method == "gptq" else AWQConfig
    config = kind(bits=4, group_size=32, offload_to_disk=False)
    model = GPTQModel.load(str(source), config, device="cpu")
    model.quantize(TEXTS * 4, batch_size=4)
    model.save(str(target))


if __name__ == "__main__":
    make(Path(sys.argv[1]))
