"""Another way to run the model, in a process of its own: one line of JSON in, one out."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
import tempfile
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import IO

from bench._program import Run
from quantchat.domain.chat import ChatMessage

BARE = """
import json, os, sys, time, warnings
os.environ |= {"GPTQMODEL_CPU_WORKERS": "2", "TRANSFORMERS_VERBOSITY": "error"}
warnings.filterwarnings("ignore")
answers = os.fdopen(os.dup(1), "w", buffering=1)
os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GPTQConfig
from transformers.generation.streamers import BaseStreamer
folder, kernel = sys.argv[1], sys.argv[2]
model = AutoModelForCausalLM.from_pretrained(
    folder, device_map={"": "cpu"}, dtype=torch.bfloat16, quantization_config=GPTQConfig(bits=4, backend=kernel)
)
tokenizer = AutoTokenizer.from_pretrained(folder)
cores = len(os.sched_getaffinity(0))

def pace(threads):
    torch.set_num_threads(threads)
    begun = time.perf_counter()
    ids = torch.ones((1, 4), dtype=torch.long)
    model.generate(input_ids=ids, do_sample=False, min_new_tokens=16, max_new_tokens=16)
    return time.perf_counter() - begun

with torch.inference_mode():
    pace(1)
    threads = min(sorted({1, cores}), key=lambda count: pace(count) + pace(count))

class Clock(BaseStreamer):
    def __init__(self):
        self.times = []
    def put(self, value):
        self.times.append(time.perf_counter())
        if len(self.times) == 2:
            torch.set_num_threads(threads)
    def end(self):
        pass

for line in sys.stdin:
    begun = time.perf_counter()
    wanted = json.loads(line)
    inputs = tokenizer.apply_chat_template(
        wanted["messages"], add_generation_prompt=True, return_tensors="pt", return_dict=True
    )
    ids = inputs["input_ids"]
    clock = Clock() if wanted["timed"] else None
    torch.set_num_threads(cores if clock else threads)
    with torch.inference_mode():
        made = model.generate(input_ids=ids, attention_mask=inputs["attention_mask"], do_sample=False,
                              max_new_tokens=wanted["limit"], streamer=clock)
    text = tokenizer.decode(made[0, ids.shape[1]:], skip_special_tokens=True)
    seconds = time.perf_counter() - begun
    # The prompt comes to the clock first.
    first = clock.times[1] - begun if clock else seconds
    print(json.dumps([text, made.shape[1] - ids.shape[1], first, seconds]), file=answers)
"""
"""`model.generate()` and nothing else, with the thread count that suits it best."""


class Peer:
    """One such process."""

    def __init__(self, process: asyncio.subprocess.Process, log: IO[bytes]) -> None:
        self._process, self._log = process, log

    async def ask(self, messages: Sequence[ChatMessage], limit: int, *, timed: bool = False) -> Run:
        """Ask greedily; `timed` also takes the time of the first token, which costs a little."""
        chat = [{"role": message.role, "content": message.content} for message in messages]
        return await self.send({"messages": chat, "limit": limit, "timed": timed})

    async def send(self, wanted: dict[str, object]) -> Run:
        process = self._process
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(json.dumps(wanted).encode() + b"\n")
        line = await process.stdout.readline()
        if not line:
            self._log.seek(0)
            raise SystemExit(
                f"The process beside quantchat failed:\n{self._log.read().decode(errors='replace')[-2000:]}"
            )
        return Run(*json.loads(line))


@contextlib.asynccontextmanager
async def started(*command: str) -> AsyncIterator[Peer]:
    """Start a process that answers; it ends with the block."""
    pipe = asyncio.subprocess.PIPE
    with tempfile.TemporaryFile() as log:
        process = await asyncio.create_subprocess_exec(*command, stdin=pipe, stdout=pipe, stderr=log)
        try:
            yield Peer(process, log)
        finally:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()


def bare(folder: Path, kernel: str) -> contextlib.AbstractAsyncContextManager[Peer]:
    """Bare transformers with the same kernel."""
    return started(sys.executable, "-c", BARE, str(folder), kernel)
