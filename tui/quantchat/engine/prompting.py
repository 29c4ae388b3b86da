"""Makes one prompt with a model's tokenizer alone, in a process of its own: `python -m quantchat.engine.prompting`.

On stdin comes one JSON object, `{"model": ModelInfo, "command": RenderPrompt}`; on stdout one JSON line,
`RenderedPrompt` or `RequestFailed`. No weights are read and torch is not imported: a second instead of a load.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import Any

import msgspec

from quantchat.domain.models import ModelInfo
from quantchat.engine.context import fit
from quantchat.engine.inspecting import rendered_prompt
from quantchat.engine.protocol import RenderedPrompt, RenderPrompt, RequestFailed
from quantchat.engine.vocabulary import Vocabulary
from quantchat.errors import GenerationError, explained

_Opened = tuple[Any, Vocabulary | None]


class Question(msgspec.Struct, frozen=True):
    """What comes on stdin."""

    model: ModelInfo
    command: RenderPrompt


def answer(question: Question) -> RenderedPrompt | RequestFailed:
    """Make the prompt, or say why there is none."""
    command, window = question.command, question.model.context_window or 0
    try:
        open_tokenizer: Callable[[ModelInfo], _Opened] = _of_gguf if question.model.container == "gguf" else _of_folder
        tokenizer, vocabulary = open_tokenizer(question.model)
        fitted = fit(tokenizer, command.messages, window, command.reserve, template=command.template)
        return rendered_prompt(command, fitted, tokenizer, window, vocabulary)
    except Exception as error:  # noqa: BLE001 - a tokenizer may raise anything; it is told
        report = explained(error, GenerationError, "The model's tokenizer cannot be used")
        return RequestFailed(request=command.request, error=report)


def _of_folder(model: ModelInfo) -> _Opened:
    # Importing torch takes longer than all the rest, and tokenizers do without.
    sys.modules.setdefault("torch", None)  # type: ignore[arg-type]
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(model.path, local_files_only=True, trust_remote_code=False), None


def _of_gguf(model: ModelInfo) -> _Opened:
    try:
        from quantchat.engine.backends.llama.library import api, start
    except ImportError as error:
        verdict = model.verdict
        raise GenerationError("GGUF needs llama-cpp-python", str(error), verdict.install, code="missing") from error
    from quantchat.engine.backends.llama.tokenizer import LlamaTokenizer

    words = start()
    parameters = api.llama_model_default_params()
    parameters.vocab_only = True
    found = api.llama_model_load_from_file(model.path.encode(), parameters)
    if not found:
        raise GenerationError("The file's vocabulary cannot be read", words.text, code="damaged")
    tokenizer = LlamaTokenizer(found)
    return tokenizer, tokenizer.vocabulary()


def main() -> None:
    """Answer the question on stdin."""
    question = msgspec.json.decode(sys.stdin.buffer.read(), type=Question)
    # Libraries may print; only the answer belongs there.
    out = os.dup(1)
    os.dup2(2, 1)
    with os.fdopen(out, "wb") as stream:
        stream.write(msgspec.json.encode(answer(question)) + b"\n")


if __name__ == "__main__":
    main()
