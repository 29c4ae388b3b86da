"""A load as the screen's side sees it: what is asked for, how far it is, and which kernels failed before."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from quantchat.domain.backends import Interpreters
from quantchat.domain.memory import GIB
from quantchat.domain.models import ModelInfo
from quantchat.domain.servers import ServerSpec, ServerTarget
from quantchat.engine.protocol import Decoding, DeviceShare, EngineExited, KernelRefusal, Load
from quantchat.store.settings import Settings

KILLED_FROM_OUTSIDE = frozenset({"SIGKILL", "SIGTERM", "SIGINT", "SIGHUP", "SIGBUS"})
"""Memory ran out, somebody ended it, or a file was cut off while it was read: not the kernel's doing."""

Likeness = tuple[object, ...]


class LoadOptions(msgspec.Struct, frozen=True, kw_only=True):
    """What the user wants of every load; the fields are those of `protocol.Load`, and these.

    Attributes:
        interpreters: Other Python interpreters that engine processes are started with.
        servers: Servers by name, whose models can be asked.
    """

    kernel: str | None = None
    device: str | None = None
    placement: tuple[DeviceShare, ...] = ()
    decoding: Decoding = "auto"
    kv_budget: int | None = None
    host_kv_budget: int | None = None
    interpreters: Interpreters = Interpreters()
    servers: Mapping[str, ServerSpec] = {}


def options_of(settings: Settings, *, kernel: str | None = None, device: str | None = None) -> LoadOptions:
    """Take the user's wishes from the settings; what the command line names wins."""
    return LoadOptions(
        kernel=kernel or settings.kernel,
        device=device or settings.device,
        placement=() if device else parse_placement(settings.placement),
        decoding=settings.decoding,
        kv_budget=_bytes(settings.kv_cache_gib),
        host_kv_budget=_bytes(settings.kv_cache_host_gib),
        interpreters=settings.engine,
        servers=settings.servers,
    )


def parse_placement(text: str) -> tuple[DeviceShare, ...]:
    """Read `cuda:0=2, cuda:1=1`, or without shares `cuda:0, cuda:1`; the settings have checked the form."""
    parts = [part.strip().partition("=") for part in text.split(",") if part.strip()]
    unsaid = 1.0 if "=" in text else 0.0
    return tuple(DeviceShare(device, float(share) if share else unsaid) for device, _, share in parts)


def _bytes(gib: float | None) -> int | None:
    return None if gib is None else int(gib * GIB)


class LoadStatus(msgspec.Struct, frozen=True, kw_only=True):
    """A load under way: the step it is in, and since when (monotonic seconds).

    Attributes:
        kernel: The kernel that runs now; empty if none does yet.
        note: What the user should know about the stage.
    """

    model: ModelInfo
    request: str
    since: float
    stage: str = "starting the engine"
    stage_since: float = 0.0
    done: int = 0
    total: int = 0
    unit: str = ""
    kernel: str = ""
    note: str = ""


class KernelTrials:
    """The kernels that failed while this program runs, so that the next load does not wait for the same failure.

    A kernel that cannot be compiled fails for all models. Another failure counts for models of the same kind, and only
    once another kernel has loaded the model: until then the model may be at fault. Nothing is kept on disk: what was
    missing may have been installed when the program starts again.
    """

    def __init__(self) -> None:
        self._builds: dict[str, KernelRefusal] = {}
        self._runs: dict[Likeness, dict[str, KernelRefusal]] = {}
        self._chain: dict[str, KernelRefusal] = {}
        self._asked: set[str | None] = set()

    def beside(self) -> KernelTrials:
        """Return trials for loads at the same time; what fails in either is known to both."""
        other = KernelTrials()
        other._builds, other._runs = self._builds, self._runs
        return other

    def begin(self) -> None:
        """A load that is no second attempt begins."""
        self._chain, self._asked = {}, set()

    def failed(self, model: ModelInfo) -> tuple[KernelRefusal, ...]:
        """Return the kernels that are not to be tried for a model."""
        known = self._builds | self._runs.get(_likeness(model), {}) | self._chain
        return tuple(known.values())

    def note(self, refusal: KernelRefusal, *, build: bool = False) -> bool:
        """Remember a failure; false if this kernel had failed in this load before, and another attempt is no use."""
        new = refusal.kernel not in self._chain
        self._chain[refusal.kernel] = refusal
        if build:
            self._builds[refusal.kernel] = refusal
        return new

    def may_ask(self, kernel: str | None) -> bool:
        """Whether a kernel was not asked for in this load yet."""
        return kernel not in self._asked

    def command(
        self,
        request: str,
        model: ModelInfo,
        options: LoadOptions,
        kernel: str | None,
        server: ServerTarget | None = None,
    ) -> Load:
        """Put the command together.

        Args:
            request: Its name.
            model: What to load.
            options: The user's wishes.
            kernel: For another attempt: the engine's own proposal, which wins.
            server: Where to ask, for a model of a server.
        """
        failed = self.failed(model)
        wish = kernel or options.kernel
        if wish is not None and any(_names(refusal.kernel, wish) for refusal in failed):
            wish = None
        self._asked.add(wish)
        return Load(
            request=request,
            model=model,
            device=options.device,
            kernel=wish,
            failed=failed,
            placement=options.placement,
            decoding=options.decoding,
            kv_budget=options.kv_budget,
            host_kv_budget=options.host_kv_budget,
            server=server,
        )

    def loaded(self, model: ModelInfo) -> None:
        """A kernel runs the model: what failed before it was the kernels' fault."""
        if self._chain:
            self._runs.setdefault(_likeness(model), {}).update(self._chain)
        self.begin()


def _likeness(model: ModelInfo) -> Likeness:
    quant = model.quant
    return (model.architecture, quant.method, quant.bits, quant.group_size, quant.desc_act, quant.sym,
            quant.checkpoint_format, quant.lm_head, quant.dynamic)  # fmt: skip


def _names(kernel: str, wish: str) -> bool:
    return wish in (kernel, kernel.partition("_")[2])


def blame(status: LoadStatus, event: EngineExited) -> KernelRefusal | None:
    """Name the kernel in whose stage the engine died, unless it was ended from outside."""
    if event.expected or not status.kernel or event.signal in KILLED_FROM_OUTSIDE:
        return None
    how = f"signal {event.signal}" if event.signal else f"exit code {event.code}"
    return KernelRefusal(
        status.kernel, f"the engine died while {status.stage} ({how})", "The engine's log has its last words."
    )
