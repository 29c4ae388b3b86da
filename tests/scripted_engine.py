"""An engine without a model: speaks the real protocol and does what a JSON script says. Imports no torch.

Run it in place of the engine with `QUANTCHAT_ENGINE_COMMAND="python tests/scripted_engine.py"`. The environment
variable `QUANTCHAT_SCRIPT` names a JSON file with any of:

    ready_delay         seconds before `Ready`
    exit_at_start       exit status, instead of ever being ready
    load                {"stages": ["reading weights", ...], "seconds": 0.2, "next_kernel": null,
                         "fail": {"code", "title", "detail", "remedy"} or null, "crash": false}
    answers             list, first match wins: {"match": substring of the last message, or null for any,
                         "text", "thinking", "tokens_per_second": 0 for as fast as it goes, "prefill_seconds",
                         "fast_tokens": so many come as fast as they go, "token_characters": 0 for words as tokens,
                         "reason": "stop", "fail": error as above, "crash_after_tokens": n}
    ignore_shutdown     neither `Shutdown` nor SIGTERM ends it
    noise               text for stderr at the start
    garbage             text that is written to the protocol's pipe after `Ready`
    unload_freed        bytes that `Unloaded` names

Without a script every prompt is echoed, one word per token, at 50 tokens per second.
"""

from __future__ import annotations

import os
import queue
import re
import signal
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec

from quantchat.domain.chat import ChatMessage
from quantchat.domain.generation import FinishReason, SamplingOverrides, TurnStatistics
from quantchat.engine.frames import FrameDecoder, command_decoder, encode_frame
from quantchat.engine.protocol import (
    Channel,
    Command,
    CountTokens,
    Delta,
    Dequantize,
    Evaluate,
    Event,
    Failed,
    Finished,
    Generate,
    JobFailed,
    JobFinished,
    JobProgress,
    Load,
    Loaded,
    LoadFailed,
    LoadProgress,
    LoadReport,
    Memory,
    Ping,
    Pong,
    Prefill,
    Quantize,
    Ready,
    RenderedPrompt,
    RenderPrompt,
    RequestFailed,
    Shutdown,
    Stop,
    TokenCount,
    Unload,
    Unloaded,
)
from quantchat.errors import ErrorReport

CRASH = 70
PREFILL_CHUNK = 64
PROGRESS_STEPS = 5


class LoadScript(msgspec.Struct, forbid_unknown_fields=True):
    stages: tuple[str, ...] = ("reading weights", "building kernel", "warming up")
    seconds: float = 0.05
    fail: ErrorReport | None = None
    next_kernel: str | None = None
    crash: bool = False


class Answer(msgspec.Struct, forbid_unknown_fields=True):
    match: str | None = None
    text: str | None = None
    thinking: str = ""
    tokens_per_second: float = 50.0
    fast_tokens: int = 0
    token_characters: int = 0
    prefill_seconds: float = 0.0
    reason: FinishReason = "stop"
    fail: ErrorReport | None = None
    crash_after_tokens: int | None = None


class Script(msgspec.Struct, forbid_unknown_fields=True):
    ready_delay: float = 0.0
    exit_at_start: int | None = None
    load: LoadScript = msgspec.field(default_factory=LoadScript)
    answers: list[Answer] = []
    ignore_shutdown: bool = False
    noise: str = ""
    garbage: str = ""
    unload_freed: int = 93 * 1024**2

    def answer_to(self, prompt: str) -> Answer:
        return next((a for a in self.answers if a.match is None or a.match in prompt), Answer())


def read_script() -> Script:
    path = os.environ.get("QUANTCHAT_SCRIPT")
    return msgspec.json.decode(Path(path).read_bytes(), type=Script) if path else Script()


def tokens_of(text: str, characters: int = 0) -> list[str]:
    """Cut a text into tokens that join to the same text: so many characters, or a word with the space before it."""
    if characters:
        return [text[start : start + characters] for start in range(0, len(text), characters)]
    return re.findall(r"\s*\S+|\s+$", text)


def count(messages: list[ChatMessage]) -> int:
    return sum(len(tokens_of(message.content)) + 2 for message in messages)


def rendered(messages: list[ChatMessage]) -> str:
    turns = "".join(f"<|im_start|>{message.role}\n{message.content}<|im_end|>\n" for message in messages)
    return turns + "<|im_start|>assistant\n"


class ScriptedEngine:
    """Reads commands in the main thread; loads, answers and does jobs in one worker thread, as the engine does."""

    def __init__(self, script: Script, commands: int, events: int) -> None:
        self._script = script
        self._commands = commands
        self._events = events
        self._write_lock = threading.Lock()
        self._work: queue.SimpleQueue[Load | Unload | Generate | Quantize | Dequantize | Evaluate] = queue.SimpleQueue()
        self._generating: str | None = None
        self._stopped: dict[str, threading.Event] = {}
        self._model: Load | None = None

    def run(self) -> None:
        if self._script.noise:
            print(self._script.noise, file=sys.stderr, flush=True)
        if self._script.exit_at_start is not None:
            os._exit(self._script.exit_at_start)
        time.sleep(self._script.ready_delay)
        self.emit(Ready(pid=os.getpid(), versions={"torch": "0.0-scripted"}, devices=("cpu",)))
        if self._script.garbage:
            os.write(self._events, self._script.garbage.encode())
        threading.Thread(target=self._worker, daemon=True).start()
        frames: FrameDecoder[Command] = FrameDecoder(command_decoder)
        while data := os.read(self._commands, 1 << 16):
            for command in frames.feed(data):
                self.hear(command)
        # The worker thread may be in the middle of a write: leave without joining it.
        os._exit(0)

    def emit(self, *events: Event) -> None:
        data = memoryview(b"".join(encode_frame(event) for event in events))
        with self._write_lock:
            try:
                while data:
                    data = data[os.write(self._events, data) :]
            except BrokenPipeError:
                os._exit(0)

    def hear(self, command: Command) -> None:
        match command:
            case Ping(request=request):
                self.emit(Pong(request=request, busy=bool(self._stopped)))
            case Stop(turn=turn):
                if stopped := self._stopped.get(turn):
                    stopped.set()
            case Shutdown():
                if not self._script.ignore_shutdown:
                    os._exit(0)
            case CountTokens() | RenderPrompt():
                self._measure(command)
            case Generate():
                self._accept(command)
            case _:
                self._enqueue(command)

    def _measure(self, command: CountTokens | RenderPrompt) -> None:
        tokens = count(command.messages)
        if isinstance(command, CountTokens):
            self.emit(TokenCount(request=command.request, tokens=tokens, window=2048))
        else:
            self.emit(RenderedPrompt(request=command.request, text=rendered(command.messages), tokens=tokens))

    def _enqueue(self, command: Load | Unload | Quantize | Dequantize | Evaluate) -> None:
        if isinstance(command, Load | Unload):
            for stopped in list(self._stopped.values()):
                stopped.set()
        else:
            self._stopped[command.job] = threading.Event()
        self._work.put(command)

    def _accept(self, command: Generate) -> None:
        if self._generating is not None:
            error = ErrorReport(code="busy", title="The engine is busy", detail="Another answer is being written.")
            self.emit(Failed(turn=command.turn, error=error))
            return
        self._generating = command.turn
        self._stopped[command.turn] = threading.Event()
        self._work.put(command)

    def _worker(self) -> None:
        while True:
            match self._work.get():
                case Load() as load:
                    self._load(load)
                case Unload(request=request):
                    self._unload(request)
                case Generate() as generate:
                    end = self._generate(generate)
                    # Free before the last event goes out: the next Generate may follow it at once.
                    self._stopped.pop(generate.turn)
                    self._generating = None
                    self.emit(end)
                case Quantize() | Dequantize() | Evaluate() as job:
                    outcome = self._run_job(job)
                    self._stopped.pop(job.job)
                    self.emit(outcome)

    def _load(self, load: Load) -> None:
        script = self._script.load
        self._model = None
        pause = script.seconds / max(1, len(script.stages) * PROGRESS_STEPS)
        for stage in script.stages:
            for step in range(1, PROGRESS_STEPS + 1):
                time.sleep(pause)
                done = load.model.weight_bytes * step // PROGRESS_STEPS
                self.emit(
                    LoadProgress(
                        request=load.request, stage=stage, done=done, total=load.model.weight_bytes, unit="bytes"
                    )
                )
        if script.crash:
            self._crash()
        if script.fail and (script.next_kernel is None or load.kernel != script.next_kernel):
            self.emit(LoadFailed(request=load.request, error=script.fail, next_kernel=script.next_kernel))
            return
        self._model = load
        self.emit(Loaded(request=load.request, report=self._report(load)), Memory(resident=load.model.weight_bytes))

    def _report(self, load: Load) -> LoadReport:
        model = load.model
        layers = 7 * (model.shape.layers or 30)
        return LoadReport(
            path=model.path,
            name=model.name,
            architecture=model.architecture or "LlamaForCausalLM",
            device=load.device or "cpu",
            dtype="bfloat16",
            kernel=load.kernel or "gptq_torch_aten",
            layers={"TorchAtenLinear": layers, "Linear": 1},
            weight_bytes=model.weight_bytes or 93 * 1024**2,
            device_bytes=model.weight_bytes or 93 * 1024**2,
            context_window=model.context_window or 2048,
            recommended=SamplingOverrides(),
            seconds=dict.fromkeys(self._script.load.stages, self._script.load.seconds),
        )

    def _unload(self, request: str) -> None:
        if self._model is None:
            error = ErrorReport(code="no-model", title="No model is loaded")
            self.emit(RequestFailed(request=request, error=error))
            return
        self._model = None
        self.emit(Unloaded(request=request, freed=self._script.unload_freed))

    def _generate(self, command: Generate) -> Finished | Failed:
        if self._model is None:
            return Failed(turn=command.turn, error=ErrorReport(code="no-model", title="No model is loaded"))
        prompt = command.messages[-1].content
        answer = self._script.answer_to(prompt)
        start = time.monotonic()
        prompt_tokens = self._prefill(command, answer)
        first = time.monotonic()
        made, reason = self._stream(command, answer, prompt)
        if answer.fail and reason != "stopped":
            return Failed(turn=command.turn, error=answer.fail)
        statistics = TurnStatistics(
            prompt_tokens=prompt_tokens,
            new_tokens=made,
            prefill_seconds=first - start,
            decode_seconds=time.monotonic() - first,
            seed=command.sampling.seed,
        )
        return Finished(turn=command.turn, reason=reason, statistics=statistics)

    def _prefill(self, command: Generate, answer: Answer) -> int:
        total = count(command.messages)
        stopped = self._stopped[command.turn]
        for done in [*range(PREFILL_CHUNK, total, PREFILL_CHUNK), total]:
            if stopped.wait(answer.prefill_seconds * min(PREFILL_CHUNK, total) / total):
                break
            self.emit(Prefill(turn=command.turn, done=done, total=total))
        return total

    def _stream(self, command: Generate, answer: Answer, prompt: str) -> tuple[int, FinishReason]:
        """Send the answer token by token; return how many and why it ended."""
        stopped = self._stopped[command.turn]
        start = time.monotonic()
        interval = 1 / answer.tokens_per_second if answer.tokens_per_second else 0.0
        made = 0
        for channel, token in speech(answer, prompt):
            if made == answer.fast_tokens:
                start = time.monotonic() - made * interval
            due = start + made * interval if made >= answer.fast_tokens else 0.0
            if stopped.wait(max(0.0, due - time.monotonic())):
                return made, "stopped"
            if made == answer.crash_after_tokens:
                self._crash()
            made += 1
            self.emit(Delta(turn=command.turn, text=token, channel=channel, tokens=made))
            if made >= command.sampling.max_new_tokens:
                return made, "length"
        if made == answer.crash_after_tokens:
            self._crash()
        return made, answer.reason

    def _run_job(self, command: Quantize | Dequantize | Evaluate) -> JobFinished | JobFailed:
        stopped = self._stopped[command.job]
        for step in range(1, PROGRESS_STEPS + 1):
            if stopped.wait(self._script.load.seconds / PROGRESS_STEPS):
                return JobFailed(job=command.job, error=ErrorReport(code="cancelled", title="Stopped"))
            self.emit(JobProgress(job=command.job, stage="working", done=step, total=PROGRESS_STEPS))
        if isinstance(command, Evaluate):
            return JobFinished(job=command.job, figures={"perplexity": 20.0})
        return JobFinished(job=command.job, output=command.output)

    def _crash(self) -> None:
        print("scripted engine: \x1b[31mFatal\x1b[0m crash as told", file=sys.stderr, flush=True)
        os._exit(CRASH)


def speech(answer: Answer, prompt: str) -> Iterator[tuple[Channel, str]]:
    """The tokens of an answer; without a text of its own it repeats the prompt."""
    text = f"You said: {prompt}" if answer.text is None else answer.text
    yield from (("thinking", token) for token in tokens_of(answer.thinking, answer.token_characters))
    yield from (("answer", token) for token in tokens_of(text, answer.token_characters))


def main() -> None:
    script = read_script()
    if script.ignore_shutdown:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    commands, events = os.dup(0), os.dup(1)
    # As in the engine: what is printed by accident lands in the log.
    os.dup2(2, 1)
    ScriptedEngine(script, commands, events).run()


if __name__ == "__main__":
    main()
