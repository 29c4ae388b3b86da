"""Tokens per second through the whole program, beside bare `model.generate()` with the same kernel.

The program's path is client → engine process → `Generate` with streaming → a consumer that drains 20 times a second, as
the screen does. The bare one runs in a process of its own. Both hold the demo's model and answer the same greedy prompt
in turn; a run counts from the question to the last token. Medians and their ratio are printed.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import sys
import time
from collections import deque
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench._report import Figure, parser, report
from demo_model import demo_model
from quantchat.catalog.reader import read_model
from quantchat.domain.chat import ChatMessage
from quantchat.domain.generation import SamplingSettings
from quantchat.engine.client import EngineClient, EngineExited
from quantchat.engine.protocol import Delta, Event, Failed, Finished, Generate, Load, Loaded, LoadFailed

BAR = 0.9
DRAINS_PER_SECOND = 20
PROMPT = "Tell me a long story about a lighthouse keeper and the ships that pass by in the night."
FRANCE = "What is the capital of France?"
GREEDY = SamplingSettings(temperature=0.0, max_new_tokens=128)

BARE = """
import json, os, sys, time, warnings
os.environ |= {"GPTQMODEL_CPU_WORKERS": "2", "TRANSFORMERS_VERBOSITY": "error"}
warnings.filterwarnings("ignore")
answers = os.fdopen(os.dup(1), "w", buffering=1)
os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GPTQConfig
folder, kernel, limit = sys.argv[1], sys.argv[2], int(sys.argv[3])
model = AutoModelForCausalLM.from_pretrained(
    folder, device_map={"": "cpu"}, dtype=torch.bfloat16, quantization_config=GPTQConfig(bits=4, backend=kernel)
)
tokenizer = AutoTokenizer.from_pretrained(folder)
for line in sys.stdin:
    begun = time.perf_counter()
    chat = [{"role": "user", "content": json.loads(line)}]
    inputs = tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    ids = inputs["input_ids"]
    with torch.inference_mode():
        made = model.generate(input_ids=ids, attention_mask=inputs["attention_mask"], do_sample=False,
                              max_new_tokens=limit)
    text = tokenizer.decode(made[0, ids.shape[1]:], skip_special_tokens=True)
    seconds = time.perf_counter() - begun
    print(json.dumps([made.shape[1] - ids.shape[1], seconds, text]), file=answers)
"""


class Run:
    """One answer."""

    def __init__(self, tokens: int, seconds: float, text: str) -> None:
        self.tokens, self.seconds, self.text = tokens, seconds, text

    @property
    def rate(self) -> float:
        return self.tokens / self.seconds


class Program:
    """The program's path without the drawing."""

    def __init__(self) -> None:
        self._arrived: deque[Event | EngineExited] = deque()
        self._client = EngineClient(self._receive)
        self._ended = 0.0
        self._turns = 0

    def _receive(self, event: Event | EngineExited) -> None:
        if isinstance(event, Finished):
            self._ended = time.perf_counter()
        self._arrived.append(event)

    async def load(self, folder: Path) -> str:
        """Load the model and return its kernel."""
        await self._client.start()
        self._client.send(Load(request="load", model=read_model(folder)))
        while True:
            for event in await self._drain():
                if isinstance(event, Loaded):
                    return event.report.kernel
                self._check(event)

    async def answer(self, prompt: str) -> Run:
        """Ask and wait for the end."""
        self._turns += 1
        text: list[str] = []
        begun = time.perf_counter()
        self._client.send(Generate(turn=f"t{self._turns}", messages=[ChatMessage("user", prompt)], sampling=GREEDY))
        while True:
            for event in await self._drain():
                self._check(event)
                if isinstance(event, Delta):
                    text.append(event.text)
                elif isinstance(event, Finished):
                    return Run(event.statistics.new_tokens, self._ended - begun, "".join(text))

    async def _drain(self) -> list[Event | EngineExited]:
        await asyncio.sleep(1 / DRAINS_PER_SECOND)
        arrived = list(self._arrived)
        self._arrived.clear()
        return arrived

    def _check(self, event: Event | EngineExited) -> None:
        if isinstance(event, Failed | LoadFailed | EngineExited):
            raise SystemExit(f"The engine failed: {event}")

    async def close(self) -> None:
        await self._client.close()


class Bare:
    """`model.generate()` in a process of its own."""

    def __init__(self, folder: Path, kernel: str) -> None:
        self._command = (sys.executable, "-c", BARE, str(folder), kernel, str(GREEDY.max_new_tokens))

    async def start(self) -> None:
        pipe = asyncio.subprocess.PIPE
        self._process = await asyncio.create_subprocess_exec(*self._command, stdin=pipe, stdout=pipe, stderr=sys.stderr)

    async def answer(self, prompt: str) -> Run:
        process = self._process
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(json.dumps(prompt).encode() + b"\n")
        line = await process.stdout.readline()
        if not line:
            raise SystemExit("The bare process failed")
        return Run(*json.loads(line))

    async def close(self) -> None:
        self._process.kill()
        await self._process.wait()


async def measure(folder: Path, rounds: int) -> tuple[list[Run], list[Run], bool]:
    """Runs of both in turn, and whether both found the capital of France."""
    program = Program()
    try:
        bare = Bare(folder, await program.load(folder))
        await bare.start()
        try:
            answers = [await program.answer(FRANCE), await bare.answer(FRANCE)]
            whole, plain = [], []
            for _ in range(rounds):
                whole.append(await program.answer(PROMPT))
                plain.append(await bare.answer(PROMPT))
            return whole, plain, all("Paris" in run.text for run in answers)
        finally:
            await bare.close()
    finally:
        await program.close()


def main() -> None:
    options = parser(__doc__ or "").parse_args()
    rounds = 4 if options.quick else 12
    whole, plain, paris = asyncio.run(measure(demo_model(), rounds))
    program = statistics.median(run.rate for run in whole)
    bare = statistics.median(run.rate for run in plain)
    figures = [
        Figure("program", program, "tok/s"),
        Figure("bare generate", bare, "tok/s"),
        Figure("program / bare generate", program / bare, "ratio", BAR, at_least=True),
        Figure("capital of France is Paris", float(paris), "yes = 1", 1.0, at_least=True),
        Figure("same greedy text", float(whole[0].text == plain[0].text), "yes = 1"),
    ]
    report(figures, as_json=options.json)


if __name__ == "__main__":
    main()
