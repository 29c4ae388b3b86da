"""The exact prompt of a conversation without a screen: by the model's tokenizer alone, or by its server."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from quantchat.domain.chat import ChatMessage, new_id
from quantchat.domain.models import ModelInfo
from quantchat.engine.protocol import RenderedPrompt, RenderPrompt, RequestFailed
from quantchat.errors import EngineGone, GenerationError
from quantchat.services.children import child, last_words
from quantchat.services.headless import Headless
from quantchat.services.inspecting import Inspected
from quantchat.services.loads import LoadOptions

MODULE = "quantchat.engine.prompting"


async def inspect_messages(
    model: ModelInfo, messages: Sequence[ChatMessage], options: LoadOptions, *, template: str = "", reserve: int = 0
) -> Inspected:
    """Return the prompt that a model would get; no weights are read.

    Args:
        options: Where servers are.
        template: A Jinja chat template in place of the model's own; empty for that.
        reserve: Tokens that are kept free for the reply.

    Raises:
        GenerationError: if no prompt can be made of them.
        LoadError: if a server does not have the model.
        EngineGone: if the process that makes it died.
    """
    if model.container == "server":
        async with Headless(options=options) as engine:
            await engine.load(model, lambda _status: None)
            prompt = await engine.render(messages, template)
    else:
        command = RenderPrompt(request=new_id(), messages=list(messages), reserve=reserve, template=template)
        prompt = await _made(model, command)
    return Inspected(prompt=prompt, messages=tuple(messages), model=model.name)


async def _made(model: ModelInfo, command: RenderPrompt) -> RenderedPrompt:
    env = {"TRANSFORMERS_VERBOSITY": "error", "HF_HUB_OFFLINE": "1"}
    async with child("-m", MODULE, env=env, talks=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(msgspec.json.encode({"model": model, "command": command}))
        process.stdin.close()
        line = await process.stdout.readline()
        if not line:
            raise EngineGone("The prompt could not be made", await last_words(process))
    found = msgspec.json.decode(line, type=RenderedPrompt | RequestFailed)
    if isinstance(found, RequestFailed):
        raise GenerationError.from_report(found.error)
    return found
