"""A server as it will be started: its command, what is set beside it, and what to know before."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable

import msgspec

from quantchat.services.serving import ports
from quantchat.services.serving.programs import Backend
from quantchat.services.snippets import shell_line, shell_quoted

KEY_VARIABLE = "VLLM_API_KEY"
"""What vLLM reads its key from: it stands in no command line, which others on the machine could read."""


class Wish(msgspec.Struct, frozen=True, kw_only=True):
    """What the user wants of a server; what is not said is chosen.

    Attributes:
        program: Where the server's program is; empty looks for it.
        port: 0 takes a free one.
        name: What the model is to be called.
        devices: Such as `("cuda:0", "cuda:2")` or `("cpu",)`; empty for all that are visible.
        context: Longest context in tokens.
        share: Of each card's whole memory.
        tensor, pipeline: Sizes of the ways to divide the model; 0 to choose.
        nodes: Machines, of which this is the first.
        tokenizer: For a GGUF file: the model that it was made from.
        remote_code: The user has read the model's own code and lets it run.
        extra: Further words of the command line, which win.
    """

    backend: Backend = "vllm"
    program: str = ""
    host: str = "127.0.0.1"
    port: int = 0
    name: str = ""
    devices: tuple[str, ...] = ()
    context: int | None = None
    share: float | None = None
    tensor: int = 0
    pipeline: int = 0
    nodes: int = 1
    dtype: str = ""
    tokenizer: str = ""
    remote_code: bool = False
    extra: tuple[str, ...] = ()


class ServePlan(msgspec.Struct, frozen=True, kw_only=True):
    """A server that could be started.

    Attributes:
        program: The one to run; where none was found, its name.
        environment: What is set beside this program's own, without the key.
        model: What requests call the model.
        context: Tokens; 0 if unknown.
        keyed: It asks for a key.
        notes: What to know before, a sentence each.
        cluster: Lines to run before on all machines, in words and commands; empty for one machine.
    """

    backend: Backend
    program: str
    arguments: tuple[str, ...]
    environment: dict[str, str] = {}
    model: str
    host: str
    port: int
    context: int = 0
    keyed: bool = False
    notes: tuple[str, ...] = ()
    cluster: tuple[str, ...] = ()

    @property
    def url(self) -> str:
        """Where its API begins, as seen from this machine."""
        return f"http://{ports.reached_at(self.host)}:{self.port}/v1"

    @property
    def command(self) -> list[str]:
        """The words to run."""
        return [self.program, *self.arguments]

    def shell(self) -> str:
        """Write the command to be copied, with what is set for it."""
        # A name is shorter, where it leads to the same program.
        name = os.path.basename(self.program)
        program = name if shutil.which(name) in (self.program, None) else self.program
        settings = (f"{name}={shell_quoted(value)}" for name, value in self.environment.items())
        return " ".join([*settings, shell_line([program, *self.arguments])])


def listed(items: Iterable[object]) -> str:
    """Write a list as a sentence has it: `0, 1 and 3`."""
    words = [str(item) for item in items]
    return " and ".join(filter(None, (", ".join(words[:-1]), *words[-1:])))
