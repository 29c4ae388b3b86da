"""A model hub on loopback: real HTTP for small repositories, with the faults that networks and hubs have, on demand.

It answers what huggingface_hub asks: a repository's files with sizes and checksums, its tree, searches, and files with
HEAD and GET, ranges, commit and checksum headers. As on the real hub, large files are redirected to another host.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import ssl
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, quote, unquote, urlsplit

PIECE = 4096
PATIENCE = 60.0


@dataclass
class Fault:
    """What goes wrong with one request for a file.

    Attributes:
        status: Answered instead of the file, with `headers`.
        drop_after: Close the connection after so many bytes of the body.
        stall_after: Send nothing more after so many bytes, until `released` or the client is gone.
        corrupt_at: Flip a bit of the byte at this place of the file.
        bytes_per_second: Send no faster.
        ignore_range: Answer with the whole file.
        wrong_range: Answer a range with the beginning of the file.
        more_promised: Promise so many bytes more than come, or fewer.
    """

    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    drop_after: int | None = None
    stall_after: int | None = None
    corrupt_at: int | None = None
    bytes_per_second: float = 0.0
    ignore_range: bool = False
    wrong_range: bool = False
    more_promised: int = 0
    reached: threading.Event = field(default_factory=threading.Event)
    released: threading.Event = field(default_factory=threading.Event)


class OnDisk:
    """A file that is too large to be held: served by ranges, with a checksum that is made up."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __len__(self) -> int:
        return self.path.stat().st_size

    def __getitem__(self, place: slice) -> bytes:
        with open(self.path, "rb") as file:
            file.seek(place.start)
            return file.read(place.stop - place.start)


Content = bytes | OnDisk


def digest(kind: str, content: Content, before: bytes = b"") -> str:
    whole = content if isinstance(content, bytes) else str(content.path).encode()
    return hashlib.new(kind, before + whole).hexdigest()


@dataclass
class Repository:
    """Files by path; weights and tokenizers are kept outside git.

    Attributes:
        listed: Contents that the hub lists where it serves others.
        past: The files of commits that were replaced.
    """

    files: dict[str, Any]
    gated: bool = False
    downloads: int = 0
    revisions: tuple[str, ...] = ("main",)
    tags: tuple[str, ...] = ()
    xet: bool = False
    listed: dict[str, bytes] = field(default_factory=dict)
    past: dict[str, dict[str, Any]] = field(default_factory=dict)

    def change(self, files: dict[str, Any]) -> None:
        """Make a new commit."""
        self.past[self.commit] = self.files
        self.files = self.files | files

    @property
    def commit(self) -> str:
        parts = [f"{path}:{digest('sha1', content)}" for path, content in sorted(self.files.items())]
        return hashlib.sha1("\n".join(parts).encode(errors="replace")).hexdigest()

    def is_large(self, path: str) -> bool:
        return path.endswith((".safetensors", ".gguf", ".bin", "tokenizer.json"))

    def blob(self, path: str) -> str:
        content = self.shown(path)
        return digest("sha1", content, b"blob %d\0" % len(content))

    def sha256(self, path: str) -> str:
        return digest("sha256", self.shown(path))

    def shown(self, path: str) -> Any:
        """A file as it is listed."""
        return self.listed.get(path, self.files[path])

    def etag(self, path: str) -> str:
        return self.sha256(path) if self.is_large(path) else self.blob(path)


@dataclass
class Request:
    """One request as it came, and how many bytes of a file were sent for it."""

    method: str
    path: str
    range: str = ""
    token: str = ""
    sent: int = 0


class HubServer:
    """The server; `faults` holds for each path of a file what goes wrong with its next requests, in order."""

    def __init__(self) -> None:
        self.repositories: dict[str, Repository] = {}
        self.faults: dict[str, list[Fault]] = {}
        self.api_faults: list[Fault] = []
        self.requests: list[Request] = []
        self.token = ""
        self.prefix = ""
        self.next_page = ""
        self.lock = threading.Lock()
        self.closing = threading.Event()
        server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
        server.daemon_threads = True
        server.hub = self  # type: ignore[attr-defined]
        self._server = server
        self.port = server.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.far = f"http://localhost:{self.port}"

    def speak_tls(self, certificate: Path) -> None:
        """Answer https alone, with a certificate and its key in one file."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self.url, self.far = self.url.replace("http:", "https:"), self.far.replace("http:", "https:")

    def start(self) -> None:
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def close(self) -> None:
        self.closing.set()
        self._server.shutdown()
        self._server.server_close()

    def fault(self, path: str, *faults: Fault) -> Fault:
        """Let the next requests for a file go wrong; return the first fault."""
        self.faults.setdefault(path, []).extend(faults)
        return faults[0]

    def next_fault(self, path: str) -> Fault | None:
        with self.lock:
            waiting = self.faults.get(path)
            return waiting.pop(0) if waiting else None

    def sent(self, path: str = "") -> int:
        """Bytes of a file, or of all files, that were sent."""
        return sum(request.sent for request in self.requests if path in request.path)

    def fetches(self, path: str) -> list[Request]:
        """The requests that brought bytes of a file."""
        return [request for request in self.requests if request.method == "GET" and request.path.endswith(path)]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        return

    @property
    def hub(self) -> HubServer:
        return self.server.hub  # type: ignore[attr-defined, no-any-return]

    def handle(self) -> None:
        with contextlib.suppress(ConnectionError, ssl.SSLError):
            super().handle()

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def _answer(self) -> None:
        address = urlsplit(self.path)
        path = unquote(address.path)
        request = Request(self.command, path, self.headers.get("Range", ""), self.headers.get("Authorization", ""))
        with self.hub.lock:
            self.hub.requests.append(request)
        if not path.startswith((f"{self.hub.prefix}/", "/far/")):
            return self._refuse(404)
        path = path.removeprefix(self.hub.prefix)
        if path.startswith("/api/models"):
            self._api(path, parse_qs(address.query))
        elif path.startswith("/far/"):
            _, _, name, file = path.split("/", 3)
            repository = self.hub.repositories[name.replace("--", "/")]
            commit = parse_qs(address.query)["commit"][0]
            self._body(request, replace(repository, files=repository.past.get(commit, repository.files)), file, {})
        elif found := re.fullmatch(r"/(.+?)/resolve/([^/]+)/(.+)", path, re.DOTALL):
            self._resolve(request, *found.groups())
        else:
            self._refuse(404)
        return None

    # The API

    def _api(self, path: str, query: dict[str, list[str]]) -> None:
        if self.hub.api_faults:
            fault = self.hub.api_faults.pop(0)
            if fault.stall_after is not None:
                return self._stall(fault)
            return self._refuse(fault.status, **fault.headers)
        if path == "/api/models":
            return self._search(query)
        found = re.fullmatch(r"/api/models/([^/]+/[^/]+?)(?:/(revision|tree)/(.+))?", path, re.DOTALL)
        name, kind, revision = found.groups() if found else ("", None, None)
        repository = self._repository(name, revision or "main")
        if repository is None:
            return None
        return self._json(_tree(repository) if kind == "tree" else _info(name, repository, "blobs" in query))

    def _search(self, query: dict[str, list[str]]) -> None:
        words = query.get("search", [""])[0].lower()
        found = [
            {
                "id": name,
                "downloads": one.downloads,
                "likes": 1,
                "gated": "manual" if one.gated else False,
                "tags": one.tags,
            }
            for name, one in self.hub.repositories.items()
            if words in name.lower()
        ]
        page = sorted(found, key=lambda one: -int(str(one["downloads"])))[: int(query.get("limit", ["100"])[0])]
        self._json(page, {"Link": f'<{self.hub.next_page}>; rel="next"'} if self.hub.next_page else {})

    def _repository(self, name: str, revision: str) -> Repository | None:
        """The repository, unless the client may not see it; then it is told why."""
        repository = self.hub.repositories.get(name)
        if self.hub.token and self.headers.get("Authorization") != f"Bearer {self.hub.token}":
            self._refuse(401, **{"X-Error-Code": "RepoNotFound", "X-Error-Message": "Repository not found"})
        elif repository is None:
            self._refuse(404, **{"X-Error-Code": "RepoNotFound", "X-Error-Message": "Repository not found"})
        elif revision in repository.past:
            return replace(repository, files=repository.past[revision])
        elif revision not in (*repository.revisions, repository.commit):
            self._refuse(404, **{"X-Error-Code": "RevisionNotFound", "X-Error-Message": f"Invalid rev id: {revision}"})
        else:
            return repository
        return None

    # Files

    def _resolve(self, request: Request, name: str, revision: str, path: str) -> None:
        repository = self._repository(name, revision)
        if repository is None:
            return
        if repository.gated:
            message = f"Access to model {name} is restricted and you are not in the authorized list."
            self._refuse(403, **{"X-Error-Code": "GatedRepo", "X-Error-Message": message})
            return
        if path not in repository.files:
            self._refuse(404, **{"X-Error-Code": "EntryNotFound", "X-Repo-Commit": repository.commit})
            return
        headers = {"X-Repo-Commit": repository.commit}
        if not repository.is_large(path):
            self._body(request, repository, path, headers | {"ETag": f'"{repository.etag(path)}"'})
            return
        headers |= {"X-Linked-Etag": f'"{repository.etag(path)}"', "X-Linked-Size": str(len(repository.shown(path)))}
        if repository.xet:
            headers |= {"X-Xet-Hash": repository.sha256(path), "X-Xet-Refresh-Route": f"{self.hub.url}/api/xet-token"}
        far = f"{self.hub.far}/far/{name.replace('/', '--')}/{quote(path)}?commit={repository.commit}"
        self._head(302, headers | {"Location": far, "Content-Length": "0"})

    def _body(self, request: Request, repository: Repository, path: str, headers: dict[str, str]) -> None:
        fault = (self.hub.next_fault(path) if self.command == "GET" else None) or Fault()
        if fault.status:
            fault.reached.set()
            self._refuse(fault.status, **fault.headers)
            return
        content = repository.files[path]
        if fault.corrupt_at is not None:
            content = bytearray(content)
            content[fault.corrupt_at] ^= 1
        begin, end = self._range(len(content), fault)
        if begin > len(content) or (begin == len(content) and begin):
            self._refuse(416, **{"Content-Range": f"bytes */{len(content)}"})
            return
        headers |= {"Accept-Ranges": "bytes", "Content-Length": str(end - begin + fault.more_promised)}
        partial = (begin, end) != (0, len(content)) or fault.wrong_range
        if partial:
            headers["Content-Range"] = f"bytes {begin}-{end - 1}/{len(content)}"
        self._head(206 if partial else 200, headers)
        if self.command == "GET":
            self._send(request, bytes(content[begin:end]), fault)

    def _range(self, size: int, fault: Fault) -> tuple[int, int]:
        found = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if not found or fault.ignore_range or fault.wrong_range:
            return 0, size
        return int(found[1]), min(int(found[2]) + 1, size) if found[2] else size

    def _send(self, request: Request, body: bytes, fault: Fault) -> None:
        limit = min((place for place in (fault.drop_after, fault.stall_after) if place is not None), default=len(body))
        for begin in range(0, min(limit, len(body)), PIECE):
            piece = body[begin : min(begin + PIECE, limit)]
            self.wfile.write(piece)
            request.sent += len(piece)
            if fault.bytes_per_second:
                self.hub.closing.wait(len(piece) / fault.bytes_per_second)
        fault.reached.set()
        if fault.stall_after is not None:
            self._stall(fault)
        if limit < len(body) or fault.more_promised:
            self.close_connection = True

    def _stall(self, fault: Fault) -> None:
        fault.reached.set()
        end = time.monotonic() + PATIENCE
        while not (fault.released.wait(0.02) or self.hub.closing.is_set() or time.monotonic() > end):
            continue
        self.close_connection = True

    # Answers

    def _head(self, status: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()

    def _refuse(self, status: int, **headers: str) -> None:
        self._head(status, {**headers, "Content-Length": "0"})

    def _json(self, value: Any, headers: dict[str, str] | None = None) -> None:
        body = json.dumps(value).encode()
        self._head(200, (headers or {}) | {"Content-Type": "application/json", "Content-Length": str(len(body))})
        if self.command == "GET":
            self.wfile.write(body)


def _lfs(repository: Repository, path: str) -> dict[str, object]:
    return {"sha256": repository.sha256(path), "size": len(repository.shown(path)), "pointerSize": 130}


def _info(name: str, repository: Repository, blobs: bool) -> dict[str, object]:
    siblings: list[dict[str, object]] = []
    for path in repository.files:
        sibling: dict[str, object] = {"rfilename": path}
        if blobs:
            sibling |= {"size": len(repository.shown(path)), "blobId": repository.blob(path)}
            sibling |= {"lfs": _lfs(repository, path)} if repository.is_large(path) else {}
        siblings.append(sibling)
    gated = "manual" if repository.gated else False
    return {"id": name, "sha": repository.commit, "gated": gated, "private": False, "siblings": siblings, "tags": []}


def _tree(repository: Repository) -> list[dict[str, object]]:
    entries: list[dict[str, object]] = []
    for path, content in repository.files.items():
        entry: dict[str, object] = {"type": "file", "path": path, "size": len(content), "oid": repository.blob(path)}
        if repository.is_large(path):
            entry["lfs"] = {"oid": repository.sha256(path), "size": len(content), "pointerSize": 130}
        entries.append(entry)
    return entries


@contextlib.contextmanager
def serving(repositories: dict[str, Repository]) -> Iterator[HubServer]:
    """Run a hub with these repositories."""
    hub = HubServer()
    hub.repositories |= repositories
    hub.start()
    try:
        yield hub
    finally:
        hub.close()


def hub_env(hub: HubServer, home: str) -> dict[str, str]:
    """The environment in which this hub is the only one."""
    return {
        "HF_ENDPOINT": hub.url,
        "HF_HOME": home,
        "HF_HUB_CACHE": f"{home}/hub",
        "HF_HUB_DOWNLOAD_TIMEOUT": "30",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_OFFLINE": "0",
        "HF_TOKEN": "",
        "NO_PROXY": "127.0.0.1,localhost",
    }
