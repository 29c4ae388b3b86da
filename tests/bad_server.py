"""An OpenAI-compatible server on loopback that misbehaves on demand: slow, failing, cut off, wrong or rude.

Without a demand it is a good one: it lists its models, answers with a few words, and stops when the client is gone.
Plain asyncio, one thread; `python tests/bad_server.py` runs a good one until it is ended and prints its address.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

PATIENCE = 30.0
WORDS = ("Hello", " there", ", my", " friend", ".")


@dataclass
class Act:
    """How one request is answered; without anything as a good server would.

    Attributes:
        status: With `body` and `headers`, in place of an answer.
        pieces: What is sent of a stream, as it stands; `Exception` in it means that the connection is cut there.
        stall: After the pieces nothing more comes until `released`, or the client is gone.
        silent: Not even the head of the answer comes.
        plain: The stream has neither length nor chunks: only the end of the connection ends it.
    """

    status: int = 200
    body: bytes | str = b""
    headers: dict[str, str] = field(default_factory=dict)
    pieces: Sequence[str | type[Exception]] | None = None
    stall: bool = False
    silent: bool = False
    plain: bool = False
    reached: threading.Event = field(default_factory=threading.Event)
    released: threading.Event = field(default_factory=threading.Event)


@dataclass
class Request:
    """A request as it came; `gone` is set when its client left before the answer's end, `done` at that end."""

    method: str
    path: str
    headers: dict[str, str]
    body: Any
    gone: threading.Event = field(default_factory=threading.Event)
    done: threading.Event = field(default_factory=threading.Event)


def chunk(text: str | None = None, finish: str | None = None, **more: Any) -> str:
    """One event of a stream; what is in `more` goes into the delta."""
    delta = ({"content": text} if text is not None else {}) | more
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    return event({"id": "x", "object": "chat.completion.chunk", "model": "tiny", "choices": [choice]})


def usage(prompt: int = 12, new: int = 5, **more: Any) -> str:
    """The last event: what it cost."""
    counts = {"prompt_tokens": prompt, "completion_tokens": new, "total_tokens": prompt + new} | more
    return event({"id": "x", "object": "chat.completion.chunk", "choices": [], "usage": counts})


def event(data: Any) -> str:
    return f"data: {json.dumps(data)}\n\n"


DONE = "data: [DONE]\n\n"


def good(words: Sequence[str] = WORDS) -> list[str]:
    """A whole stream."""
    counts = usage(new=len(words))
    return [chunk(role="assistant"), *(chunk(word) for word in words), chunk("", "stop"), counts, DONE]


class BadServer:
    """The server.

    Attributes:
        acts: What the next requests for a path do, in order; what is left after them is done well.
        always: What all requests for a path do.
        requests: All that came.
        running: Answers that are being written.
        answers: Gives the good answer to a request's body.
        pages: Bodies of other paths, such as `/metrics`; a function is asked with the request's body.
    """

    def __init__(self, *, models: Sequence[dict[str, Any]] | None = None, owner: str = "vllm") -> None:
        self.models = list(models) if models is not None else [{"id": "tiny", "max_model_len": 4096}]
        self.owner = owner
        self.acts: dict[str, list[Act]] = {}
        self.always: dict[str, Act] = {}
        self.requests: list[Request] = []
        self.pages: dict[str, bytes | Callable[[Any], Any]] = {"/health": b""}
        self.answers: Callable[[Any], Sequence[str] | Act] = lambda _body: good()
        self.key = ""
        self.running = 0
        self.port = 0
        self._loop = asyncio.new_event_loop()
        self._open: set[asyncio.StreamWriter] = set()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._listening = threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    def start(self) -> BadServer:
        self._thread.start()
        assert self._listening.wait(PATIENCE)
        return self

    def close(self) -> None:
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(PATIENCE)

    def will(self, *acts: Act, path: str = "/v1/chat/completions") -> Act:
        """Say what the next requests for a path do; return the first act."""
        self.acts.setdefault(path, []).extend(acts)
        return acts[0]

    def asked(self, path: str = "/v1/chat/completions") -> list[Request]:
        """The requests for a path."""
        return [request for request in self.requests if request.path == path]

    def sleep(self) -> None:
        """Stop listening and drop every connection; `wake` listens again on the same port."""
        asyncio.run_coroutine_threadsafe(self._stop_listening(), self._loop).result(PATIENCE)

    def wake(self) -> None:
        asyncio.run_coroutine_threadsafe(self._listen(), self._loop).result(PATIENCE)

    # On its thread

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_until_complete(self._listen())
        self._listening.set()
        self._loop.run_forever()
        self._loop.run_until_complete(self._end())
        self._loop.close()

    async def _listen(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port, limit=1 << 24)
        self.port = self._server.sockets[0].getsockname()[1]

    async def _stop_listening(self) -> None:
        self._server.close()
        for writer in list(self._open):
            writer.transport.abort()

    async def _end(self) -> None:
        await self._stop_listening()
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open.add(writer)
        try:
            with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
                while request := await _read(reader):
                    self.requests.append(request)
                    await self._answer(request, reader, writer)
        finally:
            self._open.discard(writer)
            writer.close()

    async def _answer(self, request: Request, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        waiting = self.acts.get(request.path)
        act = waiting.pop(0) if waiting else self.always.get(request.path) or self._well(request)
        computes = request.path == "/v1/chat/completions"
        self.running += computes
        work = asyncio.ensure_future(self._perform(act, request, writer))
        watch = asyncio.ensure_future(reader.read(1))
        try:
            await asyncio.wait({work, watch}, return_when=asyncio.FIRST_COMPLETED)
            if not work.done():
                request.gone.set()
                raise ConnectionError
            await work
        finally:
            self.running -= computes
            for task in (work, watch):
                task.cancel()
            await asyncio.gather(work, watch, return_exceptions=True)
            request.done.set()
        # One request for each connection: what was read to see it end belongs to nobody.
        raise ConnectionError

    def _well(self, request: Request) -> Act:
        if self.key and request.headers.get("authorization") != f"Bearer {self.key}":
            words = f"Incorrect API key provided: {request.headers.get('authorization', 'none')}"
            return _json({"error": {"message": words, "code": "invalid_api_key"}}, 401)
        if request.path == "/v1/models":
            rows = [{"object": "model", "owned_by": self.owner} | model for model in self.models]
            return _json({"object": "list", "data": rows})
        if request.path == "/v1/chat/completions":
            answer = self.answers(request.body)
            return answer if isinstance(answer, Act) else Act(pieces=answer)
        page = self.pages.get(request.path)
        if page is None:
            return _json({"detail": "Not Found"}, 404)
        return Act(body=page) if isinstance(page, bytes) else _json(page(request.body))

    async def _perform(self, act: Act, request: Request, writer: asyncio.StreamWriter) -> None:
        act.reached.set()
        if act.silent:
            await self._wait(act)
        if act.pieces is None:
            body = act.body.encode() if isinstance(act.body, str) else act.body
            writer.write(_head(act, f"Content-Length: {len(body)}\r\nConnection: close") + body)
            await writer.drain()
            return
        framing = "Connection: close" + ("" if act.plain else "\r\nTransfer-Encoding: chunked")
        act.headers.setdefault("Content-Type", "text/event-stream")
        writer.write(_head(act, framing))
        for piece in act.pieces:
            if not isinstance(piece, str):
                writer.transport.abort() if piece is ConnectionResetError else writer.close()
                return
            data = piece.encode(errors="surrogateescape")
            writer.write(data if act.plain else b"%x\r\n%s\r\n" % (len(data), data))
            await writer.drain()
            await asyncio.sleep(0)
        if act.stall:
            await self._wait(act)
        if not act.plain:
            writer.write(b"0\r\n\r\n")
        await writer.drain()

    async def _wait(self, act: Act) -> None:
        while not act.released.is_set():  # noqa: ASYNC110 - it is set by another thread
            await asyncio.sleep(0.005)


def _head(act: Act, framing: str) -> bytes:
    lines = [f"HTTP/1.1 {act.status} X", framing, *(f"{name}: {value}" for name, value in act.headers.items())]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def _json(data: Any, status: int = 200) -> Act:
    return Act(status=status, body=json.dumps(data), headers={"Content-Type": "application/json"})


async def _read(reader: asyncio.StreamReader) -> Request | None:
    """Read one request; None at the end of the connection."""
    lines = [line async for line in _lines(reader)]
    if not lines:
        return None
    method, path, _ = lines[0].split(" ", 2)
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines[1:])}
    body = await reader.readexactly(int(headers.get("content-length", "0")))
    return Request(method, path.partition("?")[0], headers, json.loads(body) if body else None)


async def _lines(reader: asyncio.StreamReader) -> AsyncIterator[str]:
    while line := (await reader.readline()).decode().rstrip("\r\n"):
        yield line


if __name__ == "__main__":
    server = BadServer().start()
    print(server.url, flush=True)
    threading.Event().wait()
