"""All services of one running program, put together from the settings."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from quantchat.domain.models import ModelInfo
from quantchat.domain.servers import ServerSpec
from quantchat.domain.text import plain
from quantchat.engine import protocol
from quantchat.engine.protocol import EngineExited
from quantchat.errors import ErrorReport, QuantchatError, StorageError
from quantchat.services.archive import Archive
from quantchat.services.branches import Branches
from quantchat.services.context import ContextMeter
from quantchat.services.conversation import Conversation
from quantchat.services.ends import pulled, quantized
from quantchat.services.facts import Fact, Listener, Notice, PullChanged, QuantizeChanged, SessionChanged
from quantchat.services.following import Follower
from quantchat.services.idle import IdleUnload
from quantchat.services.library import EngineFactory, Library, Phase
from quantchat.services.loads import options_of
from quantchat.services.memory import MemoryWatch
from quantchat.services.serverlist import Servers
from quantchat.services.servers import assumed_model
from quantchat.store.settings import Settings
from quantchat.store.state import UiState, load_state, save_state

if TYPE_CHECKING:
    from quantchat.domain.generation import SamplingOverrides
    from quantchat.services.comparing import Comparison
    from quantchat.services.evaluations import QualityDesk
    from quantchat.services.finding import Finder
    from quantchat.services.inspecting import PromptInspector
    from quantchat.services.presets import Presets
    from quantchat.services.pull.jobs import Job, Pulls
    from quantchat.services.quantizing.job import QuantizeJob
    from quantchat.services.quantizing.running import Quantizations
    from quantchat.services.titles import Titles
    from quantchat.services.waiting import LoadWhenFree

QUIT_GRACE = 1.2
"""Seconds that the engine gets to leave on quit; with the kill that follows, quitting stays well under 2.5 s."""


class Desk:
    """Archive, library, conversation and memory watch, and what the program remembers between starts."""

    def __init__(
        self,
        settings: Settings,
        listener: Listener,
        *,
        models_dirs: Sequence[Path] = (),
        kernel: str | None = None,
        device: str | None = None,
        servers: Mapping[str, ServerSpec] | None = None,
        engine_factory: EngineFactory | None = None,
    ) -> None:
        self.settings = settings
        self.state: UiState = load_state()
        self._listen = listener
        self._state_lock = asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()
        self._engine_factory = engine_factory
        self.given_folders = tuple(models_dirs)
        self.archive = Archive(listener)
        self.archive.store.assumed_prompt = plain(settings.system_prompt)
        self.servers = Servers(listener, settings.servers, servers)
        wishes = options_of(settings, kernel=kernel, device=device)
        self.library = Library(
            listener,
            models_dirs=self._folders(),
            options=msgspec.structs.replace(wishes, servers=self.servers.specs),
            engine_factory=engine_factory,
        )
        self.servers.on_models = self.library.scanner.take_served
        self.conversation = Conversation(
            self.archive,
            self.library,
            self._tell,
            sampling=settings.sampling,
            want_model=self._load_last,
            parallel_turns=settings.parallel_turns,
        )
        self.branches = Branches(self.archive, self.conversation, listener)
        self.context = ContextMeter(self.library, self.conversation, listener)
        self.following = Follower(self.archive, listener)
        self.library.on_turn_event = self._on_turn_event
        self.library.on_loaded = self._on_loaded
        self.memory = MemoryWatch(self.library.options)
        self.idle = IdleUnload(
            settings.idle_unload_minutes,
            in_use=lambda: self.conversation.busy or self.conversation.waiting > 0 or self._compares,
            loaded=lambda: self.library.phase is Phase.LOADED,
            unload=lambda note: self.run(self.library.unload(note)),
        )

    def _tell(self, fact: Fact) -> None:
        """Pass on what happens in sessions; before the engine hears of it, for it gives back what titles took."""
        if isinstance(fact, SessionChanged) and (fact.answered or "titles" in self.__dict__):
            self.titles.on_fact(fact)
        self._listen(fact)

    @cached_property
    def titles(self) -> Titles:
        """Titles by the loaded model; made when a session has something to name."""
        from quantchat.services.titles import Titles

        return Titles(
            self.archive,
            self.library,
            self.conversation,
            self._listen,
            automatic=self.settings.automatic_titles,
        )

    def _on_loaded(self, model: ModelInfo, report: protocol.LoadReport) -> None:
        """Keep what the load came to beside its prediction, which corrects the next one."""
        versions = self.library.ready.versions if self.library.ready is not None else {}
        self.run(self.memory.learn(model, report, versions))

    @cached_property
    def when_free(self) -> LoadWhenFree:
        """Loads that wait until there is memory for them."""
        from quantchat.services.waiting import LoadWhenFree

        return LoadWhenFree(
            self.load,
            lambda: self.memory.look(self.library.engine_pid),
            self._listen,
            busy=lambda: self.conversation.busy,
        )

    def _on_turn_event(self, event: protocol.Event | EngineExited) -> None:
        if isinstance(event, protocol.Finished | protocol.Failed):
            self.idle.touch()
        self.conversation.on_event(event)
        self.context.on_event(event)
        if "titles" in self.__dict__:
            self.titles.on_event(event)
        if "inspector" in self.__dict__:
            self.inspector.on_event(event)
        if "comparison" in self.__dict__:
            self.comparison.on_chat_event(event)

    @cached_property
    def comparison(self) -> Comparison:
        """Two sides that answer the same prompt; made when somebody compares."""
        from quantchat.services.comparing import Comparison

        return Comparison(
            lambda: self.memory.look(self.library.engine_pid),
            self.library.options,
            sampling=self.settings.sampling,
            chat=self.library,
            learn=self.memory.learn,
            engine_factory=self._engine_factory,
        )

    @cached_property
    def inspector(self) -> PromptInspector:
        """Shows what the engine is asked with; made when somebody looks."""
        from quantchat.services.inspecting import PromptInspector

        return PromptInspector(self.library, self.conversation)

    @property
    def _compares(self) -> bool:
        return "comparison" in self.__dict__ and self.comparison.busy

    def _load_last(self) -> bool:
        """Begin to load the model that was used last; say whether there is one."""
        model = self.library.last_model or self.find(self.state.last_model)
        if model is None or not model.loadable:
            return False
        self.load(model)
        return True

    def _folders(self) -> list[Path]:
        return [*self.given_folders, *(Path(folder) for folder in self.settings.models_dirs if folder.strip())]

    async def look_in(self, folders: Sequence[str]) -> None:
        """Keep these as the folders of the settings, and look for models there.

        Raises:
            QuantchatError: if the settings cannot be written; all is then as it was.
        """
        from quantchat.store.settings import update_settings

        self.settings = await asyncio.to_thread(update_settings, models_dirs=list(folders))
        self.run(self.library.scanner.look_in(self._folders()))

    def watch_models(self) -> None:
        """Look for changes of the models on the disk and of servers if it is time to; called about once a second."""
        if self.library.scanner.due:
            self.run(self.library.scanner.watch())
        if self.servers.due:
            self.run(self.servers.watch())

    @cached_property
    def library_of_presets(self) -> Presets:
        """The presets, with their files."""
        from quantchat.services.presets import Presets

        return Presets(self.settings.presets)

    @property
    def presets(self) -> dict[str, SamplingOverrides]:
        """All presets by name, as their files are now."""
        return self.library_of_presets.known()

    def remember(self, **what: object) -> None:
        """Note what the next start should know, such as `last_session`; a crash must not forget it.

        A temporary session leaves no trace.
        """
        if self.archive.is_temporary(str(what.get("last_session", ""))):
            del what["last_session"]
        if isinstance(places := what.get("places"), dict):
            what["places"] = {name: place for name, place in places.items() if not self.archive.is_temporary(name)}
        state = msgspec.structs.replace(self.state, **what)
        if state != self.state:
            self.state = state
            self.run(self._save_state())

    async def _save_state(self) -> None:
        async with self._state_lock:
            # Losing this costs nothing; a disk that refuses is reported by the sessions.
            with contextlib.suppress(StorageError):
                await asyncio.to_thread(save_state, self.state)

    def find(self, path: str | None) -> ModelInfo | None:
        """Return the model of a folder, if it was found; one of a server that did not answer yet is taken for there."""
        found = next((model for model in self.library.models if model.path == path), None)
        return found or assumed_model(path or "", self.servers.specs)

    def load(self, model: ModelInfo) -> None:
        """Load a model; the answers that stream now are stopped and kept, waiting prompts go to the new model.

        One that is known not to load stops nothing, and one that loads already does not begin again.
        """
        loading = self.library.loading
        if loading is not None and loading.model.path == model.path:
            return
        self._stop_waiting()
        if model.loadable:
            self.remember(last_model=model.path, used_models=self.state.used_with(model.path, time.time()))
            self.conversation.stop_running()
        self.run(self._load(model))

    async def _load(self, model: ModelInfo) -> None:
        try:
            await self.library.load(model)
        except QuantchatError as error:
            self._listen(Notice(report=error.report, dialog=True))
            if self.library.phase not in (Phase.LOADED, Phase.LOADING):
                self.conversation.return_waiting()

    def unload(self, then: Callable[[], None] = lambda: None) -> None:
        """Unload the model, or break off its load; prompts that wait for it become drafts again."""
        self._stop_waiting()
        self.conversation.stop_all()
        self.run(self._unload(then))

    async def _unload(self, then: Callable[[], None]) -> None:
        await self.library.unload()
        then()

    def wait_line(self) -> str:
        """Say which model waits for memory; empty if none does."""
        waiting = self.when_free.waiting if "when_free" in self.__dict__ else None
        return "" if waiting is None else waiting.line()

    def _stop_waiting(self) -> None:
        if "when_free" in self.__dict__:
            self.when_free.cancel()

    def load_previous(self) -> bool:
        """Load the model that was loaded before; say whether there was one."""
        model = self.library.previous
        if model is not None:
            self.load(model)
        return model is not None

    @cached_property
    def pulls(self) -> Pulls:
        """The downloads of this program; made when the first is thought of."""
        from quantchat.services.pull.jobs import Pulls

        return Pulls(self._on_pull)

    @cached_property
    def finder(self) -> Finder:
        """The search in all sessions, and its index."""
        from quantchat.services.finding import Finder

        return Finder(self.archive, self._listen)

    def pull_line(self) -> str:
        """Say how the download under way stands; empty if there is none."""
        return self.pulls.line() if "pulls" in self.__dict__ else ""

    def _on_pull(self, job: Job) -> None:
        self._listen(PullChanged())
        if notice := pulled(job):
            self._listen(notice)
        if job.state == "done":
            self.run(self.library.scan())

    @cached_property
    def quantizing(self) -> Quantizations:
        """The one quantization of this program; made when the first is thought of."""
        from quantchat.services.engine import default_engine
        from quantchat.services.quantizing.running import Quantizations

        factory = self._engine_factory or default_engine
        return Quantizations(self._on_quantize, factory, store=self.archive.store, opened=self.archive)

    @property
    def running_job(self) -> QuantizeJob | None:
        """The quantization under way."""
        known = "quantizing" in self.__dict__ and self.quantizing.running
        return self.quantizing.job if known else None

    def _on_quantize(self, job: QuantizeJob) -> None:
        self._listen(QuantizeChanged())
        if job.state.ended == "done":
            self.run(self.library.scan())
        # Who looks at the job sees how it ended.
        if not self.quantizing.watchers and (notice := quantized(job)):
            self._listen(notice)

    @cached_property
    def quality(self) -> QualityDesk:
        """What is known of the models' quality, and the one evaluation of this program."""
        from quantchat.services.evaluations import QualityDesk

        return QualityDesk(self._listen, lambda: self.library.models, self._engine_factory)

    @property
    def known_quality(self) -> QualityDesk | None:
        """The same, if somebody has asked for it already."""
        return self.quality if "quality" in self.__dict__ else None

    async def look(self) -> None:
        """Look at memory, at other programs' sessions, and whether the model is idle; called about once a second."""
        self.idle.check()
        self.following.look()
        await self.memory.look(self.library.engine_pid)

    def run(self, work: Coroutine[object, object, None]) -> None:
        """Run a coroutine of a service to its end, holding a reference; its errors become notices."""
        task: asyncio.Task[None] = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if task.cancelled():
            return
        error = task.exception()
        if isinstance(error, QuantchatError):
            self._listen(Notice(report=error.report, dialog=True))
        elif error is not None:
            raise error

    async def _end_job(self) -> None:
        if "quantizing" in self.__dict__:
            await self.quantizing.close()
        if "quality" in self.__dict__:
            await self.quality.close()

    async def close(self) -> list[ErrorReport]:
        """Keep what streams, write everything, end the engine; return what could not be written."""
        self._stop_waiting()
        self.following.close()
        self.context.close()
        if "titles" in self.__dict__:
            self.titles.close()
        self.conversation.finish_now()
        if "comparison" in self.__dict__:
            await self.comparison.close()
        if "pulls" in self.__dict__:
            await self.pulls.close()
        if "finder" in self.__dict__:
            self.finder.close()
        ends = self.archive.close(), self.library.close(QUIT_GRACE), self._end_job(), self.servers.close()
        unsaved, _, _, _ = await asyncio.gather(*ends)
        await self._save_state()
        return [error.report for error in unsaved]
