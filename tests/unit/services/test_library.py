"""Loading, falling to the next kernel, switching and unloading, over engines that only record what they are told."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from quantchat.domain.backends import OWN, EngineSpec
from quantchat.domain.models import ModelInfo, QuantSpec
from quantchat.engine import protocol as p
from quantchat.engine.client import EngineExited
from quantchat.errors import ErrorReport
from quantchat.services.facts import EngineChanged, Fact, Notice
from quantchat.services.library import Library, Phase
from quantchat.services.loads import LoadOptions
from unit.services.turn_bench import PATIENCE, REPORT, RecordingEngine

FOUR_BITS = QuantSpec(method="gptq", bits=4, group_size=128, desc_act=False, sym=True, checkpoint_format="gptq")
ALPHA = ModelInfo(path="/models/alpha", name="alpha", architecture="LlamaForCausalLM", quant=FOUR_BITS)
BETA = ModelInfo(path="/models/beta", name="beta", architecture="LlamaForCausalLM", quant=FOUR_BITS)
OTHER = ModelInfo(path="/models/other", name="other", architecture="Qwen3ForCausalLM", quant=FOUR_BITS)
BROKE = ErrorReport(code="kernel", title="The kernel broke", detail="RuntimeError: no", remedy="")
UNBUILT = ErrorReport(code="kernel-build", title="The kernel could not be built", detail="nvcc: not found")


class Shelf:
    """A library, what it said, and the engines it started."""

    def __init__(self, **options: object) -> None:
        self.facts: list[Fact] = []
        self.stages: list[str] = []
        self.engines: list[RecordingEngine] = []
        self.turn_events: list[p.Event | EngineExited] = []
        self.library = Library(self._hear, options=LoadOptions(**options), engine_factory=self._engine)  # type: ignore[arg-type]
        self.library.on_turn_event = self.turn_events.append

    def _hear(self, fact: Fact) -> None:
        self.facts.append(fact)
        if isinstance(fact, EngineChanged) and self.library.loading is not None:
            self.stages.append(self.library.loading.stage)

    def _engine(self, on_event: Callable[[p.Event | EngineExited], None], _spec: EngineSpec = OWN) -> RecordingEngine:
        self.engines.append(RecordingEngine(on_event))
        return self.engines[-1]

    @property
    def engine(self) -> RecordingEngine:
        return self.engines[-1]

    @property
    def loads(self) -> list[p.Load]:
        return [sent for engine in self.engines for sent in engine.sent if isinstance(sent, p.Load)]

    @property
    def dialogs(self) -> list[ErrorReport]:
        return [fact.report for fact in self.facts if isinstance(fact, Notice) and fact.dialog]

    @property
    def warnings(self) -> list[str]:
        return [fact.report.sentence() for fact in self.facts if isinstance(fact, Notice) and not fact.dialog]

    async def next_load(self, count: int) -> p.Load:
        """Wait for the load number `count`."""
        end = asyncio.get_running_loop().time() + PATIENCE
        while len(self.loads) < count:
            assert asyncio.get_running_loop().time() < end, self.loads
            await asyncio.sleep(0)
        return self.loads[count - 1]

    def fail(self, kernel: str, following: str | None, error: ErrorReport = BROKE) -> None:
        failed = p.KernelRefusal(kernel, error.detail)
        request = self.loads[-1].request
        self.engine.say(p.LoadFailed(request=request, error=error, next_kernel=following, failed=failed))

    def progress(self, stage: str, kernel: str = "") -> None:
        self.engine.say(p.LoadProgress(request=self.loads[-1].request, stage=stage, kernel=kernel))

    def crash(self, signal: str = "SIGSEGV") -> None:
        self.engine.running = False
        self.engine.say(EngineExited(code=None, signal=signal, log_tail="Fatal Python error", expected=False))

    def loaded(self) -> None:
        self.engine.say(p.Loaded(request=self.loads[-1].request, report=REPORT))

    async def load(self, model: ModelInfo) -> None:
        await self.library.load(model)
        self.loaded()


@pytest.fixture
def shelf() -> Shelf:
    return Shelf()


async def test_a_kernel_that_fails_gives_way_to_the_next_in_a_fresh_process(shelf: Shelf) -> None:
    await shelf.library.load(ALPHA)
    shelf.fail("gptq_marlin", "gptq_exllama_v2")
    second = await shelf.next_load(2)
    assert second.kernel == "gptq_exllama_v2"
    assert [refusal.kernel for refusal in second.failed] == ["gptq_marlin"]
    assert len(shelf.engines) == 2
    assert not shelf.engines[0].running
    shelf.fail("gptq_exllama_v2", "gptq_triton")
    third = await shelf.next_load(3)
    assert [refusal.kernel for refusal in third.failed] == ["gptq_marlin", "gptq_exllama_v2"]
    shelf.loaded()
    assert shelf.library.phase is Phase.LOADED
    assert not shelf.dialogs


async def test_when_no_kernel_is_left_the_last_error_is_shown(shelf: Shelf) -> None:
    await shelf.library.load(ALPHA)
    shelf.fail("gptq_torch", None)
    assert [report.title for report in shelf.dialogs] == ["The kernel broke"]
    assert shelf.library.phase is not Phase.LOADING
    assert len(shelf.loads) == 1


async def test_a_crash_in_a_kernels_stage_is_the_kernels_fault_and_the_next_is_tried(shelf: Shelf) -> None:
    await shelf.library.load(ALPHA)
    shelf.progress("reading config")
    shelf.progress("warming up", "gptq_marlin")
    shelf.crash()
    second = await shelf.next_load(2)
    (refusal,) = second.failed
    assert refusal.kernel == "gptq_marlin"
    assert "warming up (signal SIGSEGV)" in refusal.reason
    assert second.kernel is None
    assert shelf.library.phase is Phase.LOADING
    # Prompts that wait for the model go on waiting.
    assert not shelf.turn_events
    shelf.loaded()
    assert not shelf.dialogs


async def test_a_kernel_that_crashes_again_is_not_tried_for_ever(shelf: Shelf) -> None:
    await shelf.library.load(ALPHA)
    shelf.progress("warming up", "gptq_marlin")
    shelf.crash()
    await shelf.next_load(2)
    shelf.progress("warming up", "gptq_marlin")
    shelf.crash()
    await asyncio.sleep(0)
    assert len(shelf.loads) == 2
    assert shelf.library.phase is Phase.OFF
    assert len(shelf.dialogs) == 1


async def test_an_engine_that_names_the_same_kernel_again_ends_the_load(shelf: Shelf) -> None:
    await shelf.library.load(ALPHA)
    for count in range(2, 4):
        shelf.engine.say(p.LoadFailed(request=shelf.loads[-1].request, error=BROKE, next_kernel="gptq_triton"))
        if count == 2:
            await shelf.next_load(2)
    await asyncio.sleep(0)
    assert len(shelf.loads) == 2
    assert len(shelf.dialogs) == 1


@pytest.mark.parametrize("broken_off", [True, False])
async def test_a_load_that_nobody_wants_any_more_is_not_tried_again(shelf: Shelf, broken_off: bool) -> None:
    await shelf.library.load(ALPHA)
    shelf.fail("gptq_marlin", "gptq_triton")
    await (shelf.library.unload() if broken_off else shelf.library.load(BETA))
    for _ in range(20):
        await asyncio.sleep(0)
    assert [load.model.name for load in shelf.loads[1:]] == ([] if broken_off else [BETA.name])


@pytest.mark.parametrize("signal", ["SIGKILL", "SIGTERM", "SIGBUS"])
async def test_an_engine_that_is_killed_from_outside_is_no_kernels_fault(shelf: Shelf, signal: str) -> None:
    await shelf.library.load(ALPHA)
    shelf.progress("warming up", "gptq_marlin")
    shelf.crash(signal)
    assert len(shelf.loads) == 1
    assert signal in shelf.dialogs[0].title


async def test_a_crash_before_any_kernel_runs_is_shown(shelf: Shelf) -> None:
    await shelf.library.load(ALPHA)
    shelf.progress("reading config")
    shelf.crash()
    assert len(shelf.loads) == 1
    assert len(shelf.dialogs) == 1


async def test_a_failed_build_is_remembered_for_all_models(shelf: Shelf) -> None:
    await shelf.library.load(ALPHA)
    shelf.fail("gptq_marlin", "gptq_triton", UNBUILT)
    await shelf.next_load(2)
    shelf.loaded()
    await shelf.library.load(OTHER)
    assert [refusal.kernel for refusal in shelf.loads[-1].failed] == ["gptq_marlin"]


async def test_a_failure_at_run_time_is_remembered_for_like_models_once_another_kernel_ran(shelf: Shelf) -> None:
    await shelf.library.load(ALPHA)
    shelf.fail("gptq_marlin", "gptq_triton")
    await shelf.next_load(2)
    shelf.loaded()
    await shelf.library.load(BETA)
    assert [refusal.kernel for refusal in shelf.loads[-1].failed] == ["gptq_marlin"]
    shelf.loaded()
    await shelf.library.load(OTHER)
    assert shelf.loads[-1].failed == ()


async def test_a_model_that_fails_with_every_kernel_does_not_spoil_them_for_others(shelf: Shelf) -> None:
    await shelf.library.load(ALPHA)
    shelf.fail("gptq_marlin", "gptq_triton")
    await shelf.next_load(2)
    shelf.fail("gptq_triton", None)
    await shelf.library.load(BETA)
    assert shelf.loads[-1].failed == ()


async def test_the_wish_for_a_kernel_that_failed_is_dropped() -> None:
    shelf = Shelf(kernel="marlin")
    await shelf.library.load(ALPHA)
    assert shelf.loads[0].kernel == "marlin"
    shelf.fail("gptq_marlin", "gptq_triton")
    await shelf.next_load(2)
    shelf.loaded()
    await shelf.library.load(BETA)
    assert shelf.loads[-1].kernel is None


async def test_wishes_go_into_the_load() -> None:
    share = p.DeviceShare("cuda:1", 2.0)
    shelf = Shelf(device="cuda:1", placement=(share,), decoding="eager", kv_budget=5, host_kv_budget=6)
    await shelf.library.load(ALPHA)
    (load,) = shelf.loads
    assert (load.device, load.placement, load.decoding) == ("cuda:1", (share,), "eager")
    assert (load.kv_budget, load.host_kv_budget) == (5, 6)


async def test_switching_ends_the_old_process_before_the_new_load(shelf: Shelf) -> None:
    await shelf.load(ALPHA)
    old = shelf.engine
    running_at_load: list[bool] = []
    original = RecordingEngine.send

    def send(engine: RecordingEngine, command: p.Command) -> None:
        running_at_load.append(old.running)
        original(engine, command)

    shelf.stages.clear()
    RecordingEngine.send = send  # type: ignore[method-assign]
    try:
        await shelf.library.load(BETA)
    finally:
        RecordingEngine.send = original  # type: ignore[method-assign]
    assert running_at_load == [False]
    assert list(dict.fromkeys(shelf.stages)) == ["unloading alpha", "starting the engine"]


async def test_a_failed_switch_says_how_to_go_back(shelf: Shelf) -> None:
    await shelf.load(ALPHA)
    await shelf.library.load(BETA)
    shelf.fail("gptq_torch", None)
    assert "/previous loads alpha again." in shelf.dialogs[0].remedy
    assert shelf.library.previous is ALPHA


async def test_previous_goes_to_and_fro(shelf: Shelf) -> None:
    assert shelf.library.previous is None
    await shelf.load(ALPHA)
    assert shelf.library.previous is None
    await shelf.load(BETA)
    assert shelf.library.previous is ALPHA
    await shelf.load(ALPHA)
    assert shelf.library.previous is BETA


async def test_unload_says_so_and_then_shows_its_note(shelf: Shelf) -> None:
    await shelf.load(ALPHA)
    notes: list[str] = []
    shelf.library._listen = lambda _fact: notes.append(shelf.library.note)
    await shelf.library.unload("Unloaded after 5 min idle")
    assert list(dict.fromkeys(notes)) == ["Unloading alpha …", "Unloaded after 5 min idle"]
    await shelf.library.load(ALPHA)
    assert shelf.library.note == ""


async def test_breaking_off_a_load_gives_its_process_no_time(shelf: Shelf) -> None:
    graces: list[float] = []
    await shelf.library.load(ALPHA)
    shelf.progress("building kernel", "gptq_marlin")
    engine = shelf.engine
    close = engine.close

    async def noted(grace: float = 2.0) -> None:
        graces.append(grace)
        await close(grace)

    engine.close = noted  # type: ignore[method-assign]
    await shelf.library.unload()
    assert graces == [0.0]
    assert shelf.library.phase is Phase.EMPTY
