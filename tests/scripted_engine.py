"""An engine without a model: speaks the real protocol and does what a JSON script says. Imports no torch.

Run it in place of the engine with `QUANTCHAT_ENGINE_COMMAND="python tests/scripted_engine.py"`. The environment
variable `QUANTCHAT_SCRIPT` names a JSON file with any of:

    ready_delay         seconds before `Ready`
    exit_at_start       exit status, instead of ever being ready
    load                {"stages": ["reading weights", ...], "seconds": 0.2, "next_kernel": null,
                         "fail": {"code", "title", "detail", "remedy"} or null, "crash": false,
                         "server": a `ServerState` that is told once a server's model is loaded, or null}
    answers             list, first match wins: {"match": substring of the last message, or null for any,
                         "model": substring of the model's name,
                         "text", "thinking", "tokens_per_second": 0 for as fast as it goes, "prefill_seconds",
                         "fast_tokens": so many come as fast as they go, "token_characters": 0 for words as tokens,
                         "reason": "stop", "fail": error as above, "crash_after_tokens": n}
    window              tokens of the context window, in place of the model's
    warm                [4, 2]: so many sessions' caches stay on the device, so many more in host memory
    ignore_shutdown     neither `Shutdown` nor SIGTERM ends it
    noise               text for stderr at the start
    garbage             text that is written to the protocol's pipe after `Ready`
    unload_freed        bytes that `Unloaded` names
    quantize            what a quantization does, see `scripted_jobs.QuantizeScript`
    title               an answer as above, to the question for a session's title; by default nothing is said

Without a script every prompt is echoed, one word per token, at 50 tokens per second. Turns of different sessions run
side by side; an answer that goes on says the rest of its text.
"""

from __future__ import annotations

import os
import queue
import signal
import sys
import threading
import time
from collections.abc import Sequence

from quantchat.domain.chat import ChatMessage
from quantchat.domain.generation import FinishReason, SamplingOverrides, TurnStatistics
from quantchat.engine.frames import FrameDecoder, command_decoder, encode_frame
from quantchat.engine.protocol import (
    Command,
    CountTokens,
    Delta,
    Evaluate,
    Event,
    Failed,
    Finished,
    Forget,
    Generate,
    Job,
    JobFailed,
    JobFinished,
    JobProgress,
    Load,
    Loaded,
    LoadFailed,
    LoadProgress,
    LoadReport,
    MeasureBandwidth,
    Memory,
    Ping,
    Pong,
    Prefill,
    Quantize,
    Ready,
    RenderPrompt,
    RequestFailed,
    Shutdown,
    Stop,
    TokenCount,
    Unload,
    Unloaded,
    Warm,
)
from quantchat.errors import ErrorReport
from scripted_answers import (
    TOKEN_BYTES,
    WINDOW,
    Answer,
    Caches,
    Script,
    dropped,
    inspected,
    prompt_of,
    read_script,
    speech,
    tokens_of,
    too_long,
    without,
)
from scripted_jobs import Crashed, quantize
from scripted_quality import figures

__all__ = ["CRASH", "tokens_of"]

CRASH = 70
PREFILL_CHUNK = 64
PROGRESS_STEPS = 5


class ScriptedEngine:
    """Reads commands in the main thread; loads and jobs take one worker thread, each answer one of its own."""

    def __init__(self, script: Script, commands: int, events: int) -> None:
        self._script = script
        self._commands = commands
        self._events = events
        self._write_lock = threading.Lock()
        self._work: queue.SimpleQueue[Load | Unload | Generate | Job] = queue.SimpleQueue()
        self._answering: set[str] = set()
        self._turns: list[threading.Thread] = []
        self._stopped: dict[str, threading.Event] = {}
        self._model: Load | None = None
        self._caches = Caches(*script.warm)
        self._caches_lock = threading.Lock()
        self._told: Warm = Warm()

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
            case Forget(session=session):
                with self._caches_lock:
                    self._caches.forget(session)
                self._tell_warm()
            case _:
                self._enqueue(command)

    def _measure(self, command: CountTokens | RenderPrompt) -> None:
        if isinstance(command, CountTokens):
            window = self._window()
            gone = dropped(command.messages, window, command.reserve)
            tokens = len(prompt_of(without(command.messages, gone)))
            if tokens >= window:
                self.emit(RequestFailed(request=command.request, error=too_long(tokens, window)))
                return
            self.emit(
                TokenCount(request=command.request, tokens=tokens, window=window, dropped=gone, reserve=command.reserve)
            )
        else:
            gone = dropped(command.messages, self._window(), command.reserve)
            self.emit(inspected(command, gone, self._window()))

    def _window(self) -> int:
        model = self._model.model.context_window if self._model is not None else None
        return self._script.window or model or WINDOW

    def _enqueue(self, command: Load | Unload | Job) -> None:
        if isinstance(command, Load | Unload):
            for stopped in list(self._stopped.values()):
                stopped.set()
        else:
            self._stopped[command.job] = threading.Event()
        self._work.put(command)

    def _accept(self, command: Generate) -> None:
        if command.session and command.session in self._answering:
            error = ErrorReport(code="busy", title="The session is busy", detail="Its last answer is being written.")
            self.emit(Failed(turn=command.turn, error=error))
            return
        self._answering.add(command.session)
        self._stopped[command.turn] = threading.Event()
        self._work.put(command)

    def _worker(self) -> None:
        while True:
            match self._work.get():
                case Load() as load:
                    self._end_turns()
                    self._load(load)
                case Unload(request=request):
                    self._end_turns()
                    self._unload(request)
                case Generate() as generate:
                    turn = threading.Thread(target=self._answer, args=[generate], daemon=True)
                    self._turns.append(turn)
                    turn.start()
                case job:
                    outcome = self._run_job(job)
                    self._stopped.pop(job.job)
                    self.emit(outcome)

    def _end_turns(self) -> None:
        for turn in self._turns:
            turn.join()
        self._turns.clear()
        self._caches.clear()
        self._tell_warm()

    def _answer(self, command: Generate) -> None:
        end = self._generate(command)
        # Free before the last event goes out: the next Generate may follow it at once.
        self._stopped.pop(command.turn)
        self._answering.discard(command.session)
        self._tell_warm()
        self.emit(end)

    def _tell_warm(self) -> None:
        with self._caches_lock:
            warm = Warm(sessions=self._caches.listing())
            if warm != self._told:
                self._told = warm
                self.emit(warm)

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
        if load.server is not None and script.server is not None:
            self.emit(script.server)

    def _report(self, load: Load) -> LoadReport:
        model = load.model
        layers = 7 * (model.shape.layers or 30)
        return LoadReport(
            path=model.path,
            name=model.name,
            architecture=model.architecture or "LlamaForCausalLM",
            device=load.device or ("cpu" if load.server is None else load.server.url),
            dtype="bfloat16",
            kernel=load.kernel or ("gptq_torch_aten" if load.server is None else "server"),
            layers={"TorchAtenLinear": layers, "Linear": 1},
            weight_bytes=model.weight_bytes or 93 * 1024**2,
            device_bytes=model.weight_bytes or 93 * 1024**2,
            context_window=self._script.window or model.context_window or WINDOW,
            recommended=SamplingOverrides(),
            kv_token_bytes=TOKEN_BYTES,
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
        question = command.messages[-1].content
        said = self._script.answer_to(question, self._model.model.name)
        answer = self._script.title if self._script.names(command) else said
        gone = dropped(command.messages, self._window(), command.sampling.max_new_tokens)
        prompt = self._prompt(without(command.messages, gone), command)
        start = time.monotonic()
        reused = self._prefill(command, answer, prompt, gone)
        first = time.monotonic()
        made, reason = self._stream(command, answer, question)
        self._keep(command, prompt + made)
        if answer.fail and reason != "stopped":
            return Failed(turn=command.turn, error=answer.fail)
        statistics = TurnStatistics(
            prompt_tokens=len(prompt),
            new_tokens=len(made),
            prefill_seconds=first - start,
            decode_seconds=time.monotonic() - first,
            seed=command.sampling.seed,
            reused_tokens=reused,
        )
        return Finished(turn=command.turn, reason=reason, statistics=statistics)

    def _prompt(self, messages: Sequence[ChatMessage], command: Generate) -> list[str]:
        begun = command.resume
        return prompt_of(messages) + (["<assistant>", *tokens_of(begun.text)] if begun else ["<assistant>"])

    def _keep(self, command: Generate, tokens: list[str]) -> None:
        if command.session:
            with self._caches_lock:
                self._caches.keep(command.session, tokens)

    def _prefill(self, command: Generate, answer: Answer, prompt: list[str], gone: int) -> int:
        """Read the prompt in steps; return how much of it was there already."""
        with self._caches_lock:
            reused = self._caches.reuse(command, prompt)
        total = len(prompt)
        stopped = self._stopped[command.turn]
        pause = answer.prefill_seconds * min(PREFILL_CHUNK, total) / total
        self.emit(Prefill(turn=command.turn, done=reused, total=total, reused=reused, dropped=gone))
        for done in [*range(reused + PREFILL_CHUNK, total, PREFILL_CHUNK), total]:
            if stopped.wait(pause):
                break
            self.emit(Prefill(turn=command.turn, done=done, total=total, reused=reused, dropped=gone))
        return reused

    def _stream(self, command: Generate, answer: Answer, prompt: str) -> tuple[list[str], FinishReason]:
        """Send the answer token by token; return them and why it ended."""
        stopped = self._stopped[command.turn]
        start = time.monotonic()
        interval = 1 / answer.tokens_per_second if answer.tokens_per_second else 0.0
        made: list[str] = []
        for channel, token in speech(answer, prompt, command.resume):
            if len(made) == answer.fast_tokens:
                start = time.monotonic() - len(made) * interval
            due = start + len(made) * interval if len(made) >= answer.fast_tokens else 0.0
            if stopped.wait(max(0.0, due - time.monotonic())):
                return made, "stopped"
            if len(made) == answer.crash_after_tokens:
                self._crash()
            made.append(token)
            self.emit(Delta(turn=command.turn, text=token, channel=channel, tokens=len(made)))
            if len(made) >= command.sampling.max_new_tokens:
                return made, "length"
        if len(made) == answer.crash_after_tokens:
            self._crash()
        return made, answer.reason

    def _run_job(self, command: Job) -> JobFinished | JobFailed:
        stopped = self._stopped[command.job]
        if isinstance(command, Quantize):
            return self._quantize(command, stopped)
        for step in range(1, PROGRESS_STEPS + 1):
            if stopped.wait(self._script.load.seconds / PROGRESS_STEPS):
                return JobFailed(job=command.job, error=ErrorReport(code="cancelled", title="Stopped"))
            share = step / PROGRESS_STEPS
            self.emit(JobProgress(job=command.job, stage="working", done=step, total=PROGRESS_STEPS, share=share))
        if isinstance(command, Evaluate):
            return JobFinished(job=command.job, figures=figures(command, self._model and self._model.model))
        if isinstance(command, MeasureBandwidth):
            return JobFinished(job=command.job, figures={"copy_bytes_per_second": 1e10, "token_bytes": 1e8})
        return JobFinished(job=command.job, output=getattr(command, "output", ""))

    def _quantize(self, command: Quantize, stopped: threading.Event) -> JobFinished | JobFailed:
        try:
            return quantize(command, self._script.quantize, stopped, self.emit)
        except Crashed:
            self._crash()
            raise

    def _crash(self) -> None:
        print("scripted engine: \x1b[31mFatal\x1b[0m crash as told", file=sys.stderr, flush=True)
        os._exit(CRASH)


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
