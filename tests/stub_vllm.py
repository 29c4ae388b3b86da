"""Stands in for `vllm serve`: says what it says, in its order, and answers as its server does.

What it does is in the JSON file that STUB_VLLM names, all of it optional:

    {"lines": ["..."],        what is logged before it is ready, beside the usual
     "hold": "shards",        stays behind the first line with this text until there is a file `go`
     "fail": ["..."],         last words; it then exits with `code`
     "fail_above": 4096,      it fails for want of memory with a longer --max-model-len, and names this one
     "code": 1,
     "ignore_term": false,    it must be killed
     "worker": "group"        starts a process beside it that ignores SIGTERM: in its group, or in a session of its own
     "die_after": 1}          ends after so many answers

Beside that file it writes `argv.json` and `environment.json` of the last start, `server.pid` and `worker.pid`.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

USUAL = [
    "(APIServer pid=1) INFO 11-22 03:00:00 [api_server.py:1945] vLLM API server version 0.33.0",
    "(APIServer pid=1) INFO 11-22 03:00:01 [model.py:514] Resolved architecture: LlamaForCausalLM",
    "(EngineCore pid=2) INFO 11-22 03:00:02 [core.py:77] Initializing a V1 LLM engine (v0.33.0) with config: model='m'",
    "(EngineCore pid=2) INFO 11-22 03:00:03 [gpu_model_runner.py:2634] Starting to load model m...",
    "(EngineCore pid=2) INFO 11-22 03:00:03 [gptq.py:1] Using MarlinLinearKernel for GPTQMarlinLinearMethod",
    "\rLoading safetensors checkpoint shards:   0% Completed | 0/2 [00:00<?, ?it/s]",
    "\rLoading safetensors checkpoint shards:  50% Completed | 1/2 [00:00<00:00,  5.53it/s]",
    "\rLoading safetensors checkpoint shards: 100% Completed | 2/2 [00:00<00:00,  5.52it/s]",
    "(EngineCore pid=2) INFO 11-22 03:00:04 [gpu_model_runner.py:2653] Model loading took 2.8871 GiB and 4 seconds",
    "(EngineCore pid=2) INFO 11-22 03:00:05 [backends.py:275] Compiling a graph for dynamic shape takes 11.47 s",
    "(EngineCore pid=2) INFO 11-22 03:00:06 [kv_cache_utils.py:1199] GPU KV cache size: 188,512 tokens",
    "(EngineCore pid=2) INFO 11-22 03:00:06 [kv_cache_utils.py:1204] Maximum concurrency for 2,048 tokens per request: "
    "92.05x",
    "\rCapturing CUDA graphs (mixed prefill-decode, FULL):  51%|###   | 26/51 [00:01<00:00, 15.07it/s]",
    "(APIServer pid=1) INFO 11-22 03:00:08 [api_server.py:1945] Starting vLLM API server 0 on http://127.0.0.1",
]
KV_MESSAGE = (
    "(EngineCore pid=2) ERROR 11-22 03:00:06 [core.py:1346] ValueError: To serve at least one request with the model's "
    "max seq len ({wanted}), (4.38 GiB KV cache is needed, which is larger than the available KV cache memory "
    "(1.0 GiB). Based on the available memory, the estimated maximum model length is {fitting}. Try increasing "
    "`gpu_memory_utilization` or decreasing `max_model_len` when initializing the engine."
)
WRAPPED = "(APIServer pid=1) RuntimeError: Engine core initialization failed. See root cause above."
STUBBORN = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)"


class Server(ThreadingHTTPServer):
    """Answers for one model."""

    daemon_threads = True

    def __init__(self, host: str, port: int, name: str, window: int, script: dict[str, object]) -> None:
        self.name, self.window = name, window
        self.key = os.environ.get("VLLM_API_KEY", "")
        self.left = int(str(script.get("die_after", 0)))
        super().__init__((host, port), Handler)

    def answered(self) -> None:
        self.left -= 1
        if self.left == 0:
            print("ERROR 11-22 03:10:00 [core.py:9] torch.OutOfMemoryError: CUDA out of memory. Tried to", flush=True)
            os._exit(1)


class Handler(BaseHTTPRequestHandler):
    """Health, the list, metrics, and an answer that repeats the question."""

    server: Server
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        match self.path:
            case "/health" | "/ping":
                self._send(200, b"")
            case "/version":
                self._json({"version": "0.33.0"})
            case "/metrics":
                self._send(200, b"# TYPE vllm:num_requests_running gauge\nvllm:num_requests_running 0\n", "text/plain")
            case "/v1/models" if self._allowed():
                model = {"id": self.server.name, "object": "model", "owned_by": "vllm"}
                self._json({"object": "list", "data": [model | {"max_model_len": self.server.window}]})
            case "/v1/models":
                self._json({"error": "Unauthorized"}, 401)
            case _:
                self._json({"detail": "Not Found"}, 404)

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.path != "/v1/chat/completions":
            self._json({"detail": "Not Found"}, 404)
        elif not self._allowed():
            self._json({"error": "Unauthorized"}, 401)
        else:
            self._answer(body)

    def _allowed(self) -> bool:
        return not self.server.key or self.headers.get("Authorization") == f"Bearer {self.server.key}"

    def _answer(self, body: dict[str, object]) -> None:
        messages = body["messages"]
        assert isinstance(messages, list)
        words = ["The", " stub", " says:", f" {messages[-1]['content']}"]
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Connection", "close")
        self.end_headers()
        for place, word in enumerate(words):
            last = place == len(words) - 1
            choice = {"index": 0, "delta": {"content": word}, "finish_reason": "stop" if last else None}
            self._chunk({"choices": [choice]})
        self._chunk({"choices": [], "usage": {"prompt_tokens": 7, "completion_tokens": 4, "total_tokens": 11}})
        self.wfile.write(b"data: [DONE]\n\n")
        self.close_connection = True
        threading.Timer(0.2, self.server.answered).start()

    def _chunk(self, what: dict[str, object]) -> None:
        chunk = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": self.server.name} | what
        self.wfile.write(b"data: " + json.dumps(chunk).encode() + b"\n\n")
        self.wfile.flush()

    def _json(self, what: dict[str, object], status: int = 200) -> None:
        self._send(status, json.dumps(what).encode(), "application/json")

    def _send(self, status: int, data: bytes, kind: str = "text/plain") -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *arguments: object) -> None:
        print("INFO:     127.0.0.1 -", format % arguments, flush=True)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="vllm", allow_abbrev=False)
    parser.add_argument("command", choices=["serve"])
    parser.add_argument("model")
    parser.add_argument("--quantization", choices=["gptq", "gptq_marlin", "awq", "awq_marlin", "bitsandbytes"])
    for name in ("served-model-name", "host", "dtype", "tokenizer", "chat-template", "distributed-executor-backend"):
        parser.add_argument(f"--{name}")
    for name in ("port", "max-model-len", "tensor-parallel-size", "pipeline-parallel-size"):
        parser.add_argument(f"--{name}", type=int)
    parser.add_argument("--gpu-memory-utilization", type=float)
    parser.add_argument("--trust-remote-code", action="store_true")
    return parser.parse_args()


def start(options: argparse.Namespace, script: dict[str, object]) -> None:
    """Say what vLLM says until it is ready, or until it fails."""
    extra = script.get("lines", [])
    assert isinstance(extra, list)
    for line in [*USUAL, *extra]:
        sys.stdout.write(line if line.startswith("\r") else f"{line}\n")
        sys.stdout.flush()
        if script.get("hold") and str(script["hold"]) in line:
            hold(Path(os.environ["STUB_VLLM"]).with_name("go"))
    limit = int(str(script.get("fail_above", 0)))
    if limit and (options.max_model_len or 0) > limit:
        last = [KV_MESSAGE.format(wanted=options.max_model_len, fitting=limit), WRAPPED]
    else:
        last = [str(line) for line in script.get("fail", [])]  # type: ignore[attr-defined]
    if last:
        print("", *last, sep="\n", flush=True)
        sys.exit(int(str(script.get("code", 1))))


def hold(until: Path) -> None:
    while not until.exists():
        time.sleep(0.02)


def work(kind: object, folder: Path) -> None:
    """Start what vLLM starts beside its server, of the worst kind."""
    worker = subprocess.Popen([sys.executable, "-c", STUBBORN], start_new_session=kind == "session")
    (folder / "worker.pid").write_text(str(worker.pid))


def main() -> None:
    options = arguments()
    file = Path(os.environ["STUB_VLLM"])
    script = json.loads(file.read_text()) if file.exists() else {}
    (file.parent / "argv.json").write_text(json.dumps(sys.argv[1:]))
    (file.parent / "server.pid").write_text(str(os.getpid()))
    (file.parent / "environment.json").write_text(json.dumps(dict(os.environ)))
    if script.get("ignore_term"):
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if script.get("worker"):
        work(script["worker"], file.parent)
    start(options, script)
    window = options.max_model_len or 2048
    with Server(options.host, options.port, options.served_model_name, window, script) as server:
        print("INFO:     Application startup complete.", flush=True)
        server.serve_forever()


if __name__ == "__main__":
    main()
