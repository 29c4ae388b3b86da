"""Chat templates in the shapes that models come with, and tiny tokenizers of both great families."""

from __future__ import annotations

import json

from engine.tiny import TEXTS

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
LLAMA3 = (
    "{{ bos_token }}{% for m in messages %}<|start_header_id|>{{ m['role'] }}<|end_header_id|>\n\n"
    "{{ m['content'] | trim }}<|eot_id|>{% endfor %}"
    "{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}"
)
MISTRAL = (
    "{{ bos_token }}{% for m in messages %}{% if m['role'] == 'user' %}[INST] {{ m['content'] }} [/INST]"
    "{% elif m['role'] == 'assistant' %}{{ m['content'] }}{{ eos_token }}"
    "{% else %}{{ raise_exception('only user and assistant') }}{% endif %}{% endfor %}"
)
SPACED = MISTRAL.replace("{{ m['content'] }}{{ eos_token }}", " {{ m['content'] | trim }}{{ eos_token }}")
GEMMA = (
    "{{ bos_token }}{% for m in messages %}{% if m['role'] == 'system' %}{{ raise_exception('no system role') }}"
    "{% endif %}<start_of_turn>{{ 'model' if m['role'] == 'assistant' else m['role'] }}\n"
    "{{ m['content'] | trim }}<end_of_turn>\n{% endfor %}"
    "{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"
)
LAST = (
    "{% for m in messages if m['role'] != 'system' %}<|im_start|>"
    "{% if loop.last and messages[0]['role'] == 'system' %}{{ messages[0]['content'] }}\n\n{% endif %}"
    "{{ m['content'] }}<|im_end|>{% endfor %}"
)
TEMPLATES = {"chatml": CHATML, "llama3": LLAMA3, "mistral": MISTRAL, "spaced": SPACED, "gemma": GEMMA, "last": LAST}
SPECIALS = (
    *("<|im_start|>", "<|im_end|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"),
    *("<start_of_turn>", "<end_of_turn>"),
)
VOCABULARIES = ("byte-level", "trimmed", "metaspace", "metaspace-everywhere")


def make_tokenizer(vocabulary: str, template: str, *, specials: tuple[str, ...] = SPECIALS):
    """Make a tokenizer of one of `VOCABULARIES` with one of `TEMPLATES`."""
    from tokenizers import Tokenizer, models, processors, trainers
    from transformers import PreTrainedTokenizerFast

    names = ["<unk>", "<s>", "</s>", *specials]
    if vocabulary.startswith("metaspace"):
        tokenizer = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True))
        alphabet = _metaspace(tokenizer, "always" if vocabulary.endswith("everywhere") else "first")
    else:
        tokenizer = Tokenizer(models.BPE())
        alphabet = _byte_level(tokenizer)
    trainer = trainers.BpeTrainer(vocab_size=len(names) + 480, special_tokens=names, initial_alphabet=alphabet)
    tokenizer.train_from_iterator([*TEXTS, "[INST] why [/INST] <think> so </think>\n"], trainer)
    if vocabulary.startswith("metaspace"):
        tokenizer = _with_bytes(tokenizer)
    if vocabulary == "trimmed":
        tokenizer.post_processor = processors.ByteLevel(trim_offsets=True)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", additional_special_tokens=list(specials)
    )
    fast.chat_template = TEMPLATES.get(template, template)
    return fast


def _byte_level(tokenizer) -> list[str]:
    from tokenizers import decoders, pre_tokenizers

    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return sorted(pre_tokenizers.ByteLevel.alphabet())


def _metaspace(tokenizer, prepend: str) -> list[str]:
    from tokenizers import decoders, pre_tokenizers

    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=prepend, split=True)
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    return [*map(chr, range(33, 127)), "▁"]


def _with_bytes(tokenizer):
    """Add the tokens that unknown characters fall back to; as special ones, decoding would hide them."""
    from tokenizers import Tokenizer

    whole = json.loads(tokenizer.to_str())
    vocabulary = whole["model"]["vocab"]
    vocabulary |= {f"<0x{byte:02X}>": len(vocabulary) + byte for byte in range(256)}
    return Tokenizer.from_str(json.dumps(whole))
