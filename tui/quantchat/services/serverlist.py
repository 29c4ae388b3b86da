"""The servers that this program knows: asked for their models, asked again by and by, added and taken out."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence

import msgspec

from quantchat.domain.models import ModelInfo
from quantchat.domain.served import ServerListing
from quantchat.domain.servers import ServerSpec, ServerTarget
from quantchat.errors import ErrorReport, ModelError, QuantchatError, UsageError
from quantchat.services.facts import Listener, ServersChanged
from quantchat.services.servers import assumed_model, models_of, named_models, target_of, unreachable

AGAIN_SECONDS = 120.0
"""After so long a server is asked again while somebody looks at the list of models."""
RETRY_SECONDS = 5.0
"""One that did not answer is asked again after so long, and each time it does not after twice as long."""
LONGEST_RETRY_SECONDS = 60.0
READABLE = ("setting-unknown", "setting-wrong")
"""What may be wrong with settings whose other entries count."""

Models = tuple[ModelInfo, ...]
Asked = tuple[ServerTarget, tuple[str, ...]]
Ask = Callable[[Sequence[Asked], Callable[[ServerListing], None]], Awaitable[None]]


class Known(msgspec.Struct, frozen=True, kw_only=True):
    """A server as it was last seen.

    Attributes:
        listing: What came back last; None before the first answer.
        models: Its models, also those of the last good answer where it gives none any more.
        failures: How often it gave none since it last did.
        due: When it is to be asked again, in seconds of the monotonic clock.
    """

    name: str
    spec: ServerSpec
    listing: ServerListing | None = None
    models: Models = ()
    failures: int = 0
    due: float = 0.0

    @property
    def error(self) -> ErrorReport | None:
        """Why it gives no models."""
        return self.listing.error if self.listing is not None else None

    def told(self, listing: ServerListing) -> Known:
        """Return it with an answer."""
        now = time.monotonic()
        if listing.error is not None:
            left = tuple(unreachable(model, listing.error) for model in self.models)
            wait = min(RETRY_SECONDS * 2.0 ** min(self.failures, 10), LONGEST_RETRY_SECONDS)
            return msgspec.structs.replace(
                self, listing=listing, models=left, failures=self.failures + 1, due=now + wait
            )
        models = models_of(self.name, self.spec, listing)
        return msgspec.structs.replace(self, listing=listing, models=models, failures=0, due=now + AGAIN_SECONDS)


class Servers:
    """The servers of the settings, and those that were given for this run alone.

    Args:
        listener: Hears of each answer.
        own: Those of the settings.
        given: Those of this run, which win; they cannot be changed here.
        ask: Asks servers; each is told once.

    Attributes:
        specs: All of them by name; the same object all the time, for those who load.
        on_models: Is given all models of all servers, whenever they change.
        watchers: More who want to hear of each answer while they are there, such as a screen.
    """

    def __init__(
        self,
        listener: Listener,
        own: Mapping[str, ServerSpec],
        given: Mapping[str, ServerSpec] | None = None,
        ask: Ask | None = None,
    ) -> None:
        self._listen, self._ask = listener, ask or _ask
        self.given = dict(given or {})
        self.specs: dict[str, ServerSpec] = {}
        self.on_models: Callable[[Models], None] = lambda _models: None
        self.watchers: set[Callable[[], None]] = set()
        self._known: dict[str, Known] = {}
        self._asked: dict[str, ServerSpec] = {}
        self._running: set[asyncio.Task[None]] = set()
        self._take_specs(own)

    @property
    def known(self) -> tuple[Known, ...]:
        """The servers in the order of the settings."""
        return tuple(self._known.values())

    def find(self, name: str) -> Known | None:
        """Return a server by its name."""
        return self._known.get(name)

    @property
    def asking(self) -> frozenset[str]:
        """Names of the servers that are being asked."""
        return frozenset(self._asked)

    @property
    def models(self) -> Models:
        """The models of all servers."""
        return tuple(model for server in self._known.values() for model in server.models)

    # Asking

    async def ask(self, names: Iterable[str] | None = None) -> None:
        """Ask servers for their models, all if none are named; those that are being asked are only waited for."""
        self.begin(names)
        if self._running:
            await asyncio.wait(self._running)

    def begin(self, names: Iterable[str] | None = None) -> None:
        """The same without waiting; needs a running event loop."""
        wanted = [name for name in (self.specs if names is None else names) if name in self.specs]
        new = {name: self.specs[name] for name in wanted if self._asked.get(name) != self.specs[name]}
        if new:
            self._asked |= new
            self._hear()
            task = asyncio.create_task(self._ask_new(new))
            self._running.add(task)
            task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._running.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            raise error

    async def refresh(self) -> None:
        """Take what the settings say now, which another program may have changed, and ask all servers."""
        from quantchat.store.settings import load_settings

        settings, problems = await asyncio.to_thread(load_settings)
        # A file that cannot be read tells of no servers.
        if all(problem.code in READABLE for problem in problems):
            self._take_specs(settings.servers)
            self._tell()
        await self.ask()

    async def named(self, name: str, models: Models) -> ModelInfo:
        """Find the model that a person means; servers are waited for only where no model of this machine is meant.

        Raises:
            ModelError: none or several fit.
        """
        from quantchat.catalog.scan import find_model

        own = tuple(model for model in models if not model.server)
        told = next((model for model in self.models if model.path == name), None)
        if (served := told or assumed_model(name, self.specs)) is not None:
            return served
        try:
            return find_model(name, own)
        except ModelError:
            if not self.specs:
                raise
        await self.ask([server.name for server in self.known if server.listing is None])
        return find_model(name, (*own, *self.models))

    async def watch(self) -> None:
        """Ask those again for which it is time."""
        now = time.monotonic()
        due = [name for name, server in self._known.items() if server.due <= now and name not in self._asked]
        if due:
            await self.ask(due)

    @property
    def due(self) -> bool:
        """Whether it is time to ask one again."""
        now = time.monotonic()
        return any(server.due <= now and name not in self._asked for name, server in self._known.items())

    def hurry(self, name: str) -> None:
        """Ask a server soon: something was heard of it."""
        if name in self._known:
            self._known[name] = msgspec.structs.replace(self._known[name], due=0.0)

    async def close(self) -> None:
        """Ask no more; the processes that ask end at once."""
        for task in self._running:
            task.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)

    async def _ask_new(self, specs: Mapping[str, ServerSpec]) -> None:
        targets = []
        try:
            for name, spec in specs.items():
                try:
                    targets.append((target_of(name, spec), spec.models))
                except QuantchatError as error:
                    self._told(specs, ServerListing(server=name, error=error.report))
            await self._ask(targets, lambda listing: self._told(specs, listing))
        finally:
            for name, spec in specs.items():
                if self._asked.get(name) == spec:
                    del self._asked[name]

    def _told(self, specs: Mapping[str, ServerSpec], listing: ServerListing) -> None:
        # It may have been taken out or changed while it was asked.
        name = listing.server
        if self.specs.get(name) != specs[name]:
            return
        self._asked.pop(name, None)
        self._known[name] = self._known[name].told(listing)
        self._tell()

    async def test(self, target: ServerTarget) -> ServerListing:
        """Ask a server that is not kept yet."""
        answers: list[ServerListing] = []
        await self._ask([(target, ())], answers.append)
        return answers[0]

    # Changing

    async def keep(self, name: str, spec: ServerSpec, key: str | None = None) -> None:
        """Write a server into the settings, its key into the file of keys, and ask it; without a key that one stays.

        Raises:
            UsageError: if it was given for this run, or is not allowed.
            StorageError: if the disk refuses; the settings are then as they were.
        """
        self._require_own(name)
        self._take_specs(await asyncio.to_thread(keep_server, name, spec, key))
        # Its key may be another: what it said before counts no more.
        self._known[name] = _new(name, self.specs[name])
        self._tell()
        self.begin([name])

    async def take_out(self, name: str) -> None:
        """Take a server out of the settings, and its key out of the file of keys.

        Raises:
            UsageError: if it was given for this run.
            StorageError: if the disk refuses.
        """
        self._require_own(name)
        self._take_specs(await asyncio.to_thread(keep_server, name, None, ""))
        self._tell()

    def _require_own(self, name: str) -> None:
        if name in self.given:
            raise UsageError(f"{name} was started for this run", remedy="It ends with it")

    def _take_specs(self, own: Mapping[str, ServerSpec]) -> None:
        new = {**own, **self.given}
        self.specs.clear()
        self.specs.update(new)
        before = self._known
        kept = {name: old for name, old in before.items() if name in new and old.spec == new[name]}
        self._known = {name: kept.get(name) or _new(name, spec) for name, spec in new.items()}

    def _tell(self) -> None:
        self.on_models(self.models)
        self._hear()

    def _hear(self) -> None:
        self._listen(ServersChanged())
        for watcher in list(self.watchers):
            watcher()


def _new(name: str, spec: ServerSpec) -> Known:
    return Known(name=name, spec=spec, models=named_models(name, spec))


async def _ask(wanted: Sequence[Asked], tell: Callable[[ServerListing], None]) -> None:
    # Not at the top: who has no servers does not need it.
    from quantchat.services.listings import ask_servers

    await ask_servers(wanted, tell)


def keep_server(name: str, spec: ServerSpec | None, key: str | None) -> Mapping[str, ServerSpec]:
    """Write a server into the settings, and its key into the file of keys; return all servers of the settings.

    The old key goes before and the new one comes after: whatever fails in between, none is left without its server, nor
    is one sent to a place that it was not given for.

    Args:
        name: The server's.
        spec: None takes it out.
        key: None leaves the one that is there, an empty one takes it out.

    Raises:
        UsageError: if it is not allowed, or a file does not parse.
        StorageError: if the disk refuses.
    """
    from quantchat.store.keys import keep_key, load_keys
    from quantchat.store.settings import update_entry

    if key is None:
        return update_entry("servers", name, spec).servers
    before = load_keys().get(name, "")
    if before != key:
        keep_key(name, "")
    try:
        servers = update_entry("servers", name, spec).servers
    except QuantchatError:
        keep_key(name, before)
        raise
    keep_key(name, key)
    return servers
