"""When there is no fast decode path, and why; what a capture does and how it is checked."""

from __future__ import annotations

import contextlib
import functools

import pytest
import torch
from transformers import AutoModelForCausalLM

from engine import zoo
from engine.fast_rig import ACCEPTED, SHORTEST, WINDOW, build, decode, eager, prefilled, prompt
from quantchat.engine import capture, graphs, static
from quantchat.engine.graphs import FastPathLost, GraphDecoder
from quantchat.engine.static import PlainStep, Refusal

REFUSED = {"qwen3_next": "linear_attention", "lfm2": "conv", "falcon_h1": "hybrid", "mamba2": "no list of positions"}

pytestmark = pytest.mark.engine


@pytest.fixture(autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    with torch.inference_mode():
        yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def models():
    return {kind: zoo.make(kind) for kind in zoo.KINDS}


@pytest.mark.parametrize("kind", zoo.KINDS)
def test_every_kind_is_accepted_or_refused_with_its_reason(models, kind):
    made = build(models[kind])
    if kind in REFUSED:
        assert isinstance(made, Refusal)
        assert REFUSED[kind] in made.reason
    else:
        assert kind in ACCEPTED
        assert isinstance(made, GraphDecoder)


def test_a_cpu_and_kernels_that_escape_a_capture_are_refused(models):
    assert graphs.create(models["llama"], WINDOW, "dense") == Refusal("it needs a CUDA device")
    from quantchat.domain.kernel_table import TABLE

    assert set(graphs.KERNEL_REFUSALS) <= {kernel.name for kernel in TABLE if kernel.device == "cuda"}


@pytest.mark.parametrize("rope", ["dynamic"])
def test_a_rotary_embedding_that_changes_with_the_length_is_refused(rope):
    model = changed(rope_parameters={"rope_type": rope, "rope_theta": 10000.0, "factor": 2.0})
    made = build(model)
    assert isinstance(made, Refusal)
    assert rope in made.reason


def test_attention_without_masks_is_refused(models):
    model = changed()
    model.config._attn_implementation = "flash_attention_2"
    assert "flash_attention_2" in build(model).reason


def test_a_model_on_several_devices_is_refused():
    model = changed()
    model.lm_head.to("meta")
    assert "more than one device" in build(model).reason


def changed(**arguments):
    config = zoo.make("llama").config
    for name, value in arguments.items():
        setattr(config, name, value)
    return AutoModelForCausalLM.from_config(config).eval()


WAITS = {
    "item": lambda x: x * x.sum().item(),
    "truth": lambda x: x + 1 if x.sum() > 0 else x,
    "nonzero": lambda x: x * x.nonzero().sum(),
    "mask": lambda x: x * x[x > 0].sum(),
    "int": lambda x: x * int(x.sum()),
    "float": lambda x: x * float(x.sum()),
    "index": lambda x: x + range(9)[x.argmax() % 9],
    "tolist": lambda x: x * x.sum().tolist(),
    "unique": lambda x: x * x.unique().sum(),
    "repeats": lambda x: x + x.flatten()[:2].repeat_interleave(torch.tensor([1, 2])).sum(),
}


@pytest.mark.parametrize("name", WAITS)
def test_a_forward_pass_that_waits_for_the_device_is_refused(name):
    model = changed()
    model.model.norm.register_forward_hook(lambda module, inputs, output: WAITS[name](output))
    made = build(model)
    assert isinstance(made, Refusal)
    assert "waits for the device" in made.reason


def test_a_router_that_looks_at_its_choice_is_refused_with_the_line(models):
    model = zoo.make("olmoe")
    model.set_experts_implementation("eager")
    assert "modeling_olmoe.py" in build(model).reason


@pytest.mark.parametrize("kind", ACCEPTED)
def test_the_step_of_an_accepted_kind_never_waits(models, kind):
    layout = static.layout(models[kind])
    assert capture.waits(PlainStep(models[kind], static.Bucket(layout, 64))) is None


class Stale:
    """What a replay gives whose kernels were not captured: the logits of its first run."""

    def __init__(self, step) -> None:
        self._step, self._bucket = step, step._bucket
        step.run()
        self._frozen = self._bucket.logits.clone()
        self.released = False

    def run(self) -> None:
        self._step.run()
        self._bucket.logits.copy_(self._frozen)

    def release(self) -> None:
        self.released = True


def test_a_step_that_computes_something_else_is_refused_and_released(models):
    made = []

    def make(step):
        made.append(Stale(step))
        return made[-1]

    refused = build(models["llama"], make_step=make)
    assert isinstance(refused, Refusal)
    assert "failed its check" in refused.reason
    assert [step.released for step in made] == [True]


def test_a_capture_that_fails_is_refused_with_its_words(models):
    def make(step):
        raise RuntimeError("operation not permitted when stream is capturing")

    refused = build(models["llama"], make_step=make)
    assert isinstance(refused, Refusal)
    assert "not permitted when stream is capturing" in refused.reason


def test_too_little_memory_says_the_bytes(models):
    need = static.layout(models["llama"]).nbytes(SHORTEST) + graphs.HEADROOM
    refused = build(models["llama"], free=lambda: need - 1)
    assert isinstance(refused, Refusal)
    assert f"{need:,}" in refused.reason
    assert f"{need - 1:,}" in refused.reason
    assert isinstance(build(models["llama"], free=lambda: need), GraphDecoder)


def test_memory_that_ends_in_mid_answer_leaves_the_session_whole(models):
    model, ids = models["llama"], prompt(SHORTEST - 4)
    expected, _ = eager(model, ids, 10)
    room = static.layout(model).nbytes(SHORTEST) + graphs.HEADROOM
    decoder = build(model, free=lambda: room)
    session = prefilled(model, ids)
    decoder.attach(session)
    found = decode(decoder, ids[-1], 5)
    with pytest.raises(FastPathLost, match="bytes"):
        decoder.step(found[-1])
    assert session.ids == [*ids, *found[:-1]]
    for _ in range(5):
        inputs = torch.tensor([found[-1:]])
        logits = model(input_ids=inputs, past_key_values=session.cache, use_cache=True).logits[0, -1]
        found.append(int(logits.argmax()))
    assert found == expected
    assert "bytes" in decoder.attach(session).reason


def test_other_buckets_make_room_for_the_one_that_is_needed(models):
    model = models["llama"]
    layout = static.layout(model)
    decoder = build(model)
    both = layout.nbytes(SHORTEST) + layout.nbytes(2 * SHORTEST)
    decoder._free_bytes = lambda: both + graphs.HEADROOM - decoder.nbytes
    decoder.attach(prefilled(model, prompt(SHORTEST + 2)))
    assert decoder.lengths == (SHORTEST, 2 * SHORTEST)
    decoder.detach()
    decoder._free_bytes = lambda: layout.nbytes(4 * SHORTEST) + graphs.HEADROOM - decoder.nbytes
    assert decoder.attach(prefilled(model, prompt(2 * SHORTEST + 2))) is None
    assert decoder.lengths == (4 * SHORTEST,)


def test_a_text_as_long_as_the_window_is_left_to_the_ordinary_path(models):
    decoder = build(models["llama"])
    session = prefilled(models["llama"], prompt(WINDOW + 1))
    assert "context window" in decoder.attach(session).reason


def test_release_gives_everything_back(models):
    released = []

    class Counted(Stale):
        def run(self) -> None:
            self._step.run()

        def release(self) -> None:
            released.append(self._bucket.length)

    decoder = build(models["llama"], make_step=Counted)
    session = prefilled(models["llama"], prompt(SHORTEST + 1))
    decoder.attach(session)
    decoder.step(3)
    decoder.release()
    assert session.ids[-1] == 3
    assert released == [SHORTEST, 2 * SHORTEST]
    assert decoder.nbytes == 0


@pytest.mark.parametrize(
    ("window", "expected"),
    [(100, [32, 64, 100]), (64, [32, 64]), (32, [32]), (20, [20]), (0, [32, 64, 128, 256, 512])],
)
def test_lengths_double_up_to_the_window(window, expected):
    found = graphs.lengths(SHORTEST, window)
    assert [next(found) for _ in expected] == expected
    if window:
        assert list(found) == []


def test_ties_are_judged_by_the_range_of_the_logits():
    logits = torch.tensor([0.0, 10.0, 9.995, 9.9])
    assert capture.is_tie(logits, 1, 2)
    assert not capture.is_tie(logits, 1, 3)
    assert capture.is_tie(logits.half(), 1, 3)
    assert capture.deviation(logits, logits + 1) == pytest.approx(0.1)
    assert not capture.deviation(logits, logits * float("nan")) <= 1


class Cuda:
    """Stands in for `torch.cuda` and notes what a capture asks of it, and on which stream."""

    def __init__(self, monkeypatch, *, fails: bool = False) -> None:
        self.calls: list[str] = []
        self.stream, self.fails = "main", fails
        for name in ("CUDAGraph", "current_stream", "Stream", "synchronize", "set_stream", "graph"):
            monkeypatch.setattr(torch.cuda, name, getattr(self, f"_{name}"))
        monkeypatch.setattr(torch.cuda, "stream", self._on)

    def note(self, call: str) -> None:
        self.calls.append(f"{call} on {self.stream}")

    run = functools.partialmethod(note, "step")
    replay = functools.partialmethod(note, "replay")
    reset = functools.partialmethod(note, "reset")

    def wait_stream(self, other) -> None:
        self.note("wait")

    def _CUDAGraph(self):  # noqa: N802
        return self

    def _current_stream(self, device):
        return self

    def _Stream(self, device):  # noqa: N802
        return self

    def _synchronize(self, device) -> None:
        self.note("synchronize")

    def _set_stream(self, stream) -> None:
        self.stream = "main"

    @contextlib.contextmanager
    def _on(self, stream):
        self.stream = "side"
        yield
        self.stream = "main"

    @contextlib.contextmanager
    def _graph(self, graph, *, pool, stream, capture_error_mode):
        assert (pool, capture_error_mode) == ("pool", "thread_local")
        self.stream = "capture"
        yield
        if self.fails:
            raise RuntimeError("invalidated")
        self.stream = "main"


def test_a_capture_is_warmed_up_on_a_side_stream_and_replayed(monkeypatch):
    cuda = Cuda(monkeypatch)
    step = capture.GraphStep(cuda, torch.device("cpu"), "pool")
    warm = ["wait on main", *["step on side"] * capture.WARM_UP_STEPS, "wait on main", "synchronize on main"]
    assert cuda.calls == [*warm, "step on capture"]
    step.run()
    step.release()
    assert cuda.calls[-2:] == ["replay on main", "reset on main"]


def test_a_failed_capture_leaves_torch_on_its_own_stream(monkeypatch):
    cuda = Cuda(monkeypatch, fails=True)
    with pytest.raises(RuntimeError, match="invalidated"):
        capture.GraphStep(cuda, torch.device("cpu"), "pool")
    assert cuda.stream == "main"
