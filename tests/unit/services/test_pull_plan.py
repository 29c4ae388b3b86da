"""What is wanted of a repository, how its name may be written, and how progress is told: plain functions."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quantchat.errors import StorageError, UsageError
from quantchat.services.pull.describing import duration, plan_lines, progress_line
from quantchat.services.pull.files import DUPLICATE, EXCLUDED, GGUF, OTHER, PICKLE, RemoteFile, offer_files
from quantchat.services.pull.names import Wanted, looks_like_repository, parse_name
from quantchat.services.pull.plan import Plan, make_plan
from quantchat.services.pull.progress import Tracker
from quantchat.services.pull.words import Described, FileMoved, Moved

CONFIGS = ("config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja")
SHARDS = ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors", "model.safetensors.index.json")
MIB = 1024**2


def files(*paths: str, size: int = 10) -> list[RemoteFile]:
    return [RemoteFile(path, size, sha256=f"{number:064x}") for number, path in enumerate(paths)]


def taken(*paths: str, **how: object) -> set[str]:
    return {offer.file.path for offer in offer_files(files(*paths), **how) if offer.taken}  # type: ignore[arg-type]


def reasons(*paths: str, **how: object) -> dict[str, str]:
    return {offer.file.path: offer.reason for offer in offer_files(files(*paths), **how)}  # type: ignore[arg-type]


# Repositories as they are on the hub


@pytest.mark.parametrize(
    ("repository", "left_out"),
    [
        pytest.param((*CONFIGS, "model.safetensors", "README.md", "LICENSE"), {}, id="plain"),
        pytest.param((*CONFIGS, *SHARDS), {}, id="shards"),
        pytest.param(
            (*CONFIGS, "model.safetensors", "pytorch_model.bin", "tf_model.h5", "flax_model.msgpack", "rust_model.ot"),
            {
                "pytorch_model.bin": PICKLE,
                "tf_model.h5": DUPLICATE,
                "flax_model.msgpack": DUPLICATE,
                "rust_model.ot": DUPLICATE,
            },
            id="all frameworks",
        ),
        pytest.param(
            (*CONFIGS, *SHARDS, "original/consolidated.00.pth", "original/params.json", "original/tokenizer.model"),
            {"original/consolidated.00.pth": OTHER, "original/params.json": OTHER, "original/tokenizer.model": OTHER},
            id="Llama with its originals",
        ),
        pytest.param(
            (*CONFIGS, *SHARDS, "consolidated.safetensors", "params.json", "tekken.json"),
            {"consolidated.safetensors": DUPLICATE},
            id="Mistral in two forms",
        ),
        pytest.param(
            (*CONFIGS, "model.safetensors", "model.fp16.safetensors", "model.fp16.safetensors.index.json"),
            {"model.fp16.safetensors": DUPLICATE, "model.fp16.safetensors.index.json": DUPLICATE},
            id="variants",
        ),
        pytest.param(
            ("config.json", "a.Q4_K_M.gguf", "a.Q8_0.gguf", "README.md"),
            {"a.Q4_K_M.gguf": GGUF, "a.Q8_0.gguf": GGUF},
            id="GGUF only",
        ),
        pytest.param(
            (*CONFIGS, "pytorch_model-00001-of-00002.bin", "pytorch_model.bin.index.json"),
            {"pytorch_model-00001-of-00002.bin": PICKLE, "pytorch_model.bin.index.json": PICKLE},
            id="pickles only",
        ),
        pytest.param(
            (*CONFIGS, "model.safetensors", "optimizer.pt", "training_args.bin", "checkpoint-500/model.safetensors"),
            {"optimizer.pt": OTHER, "training_args.bin": OTHER, "checkpoint-500/model.safetensors": OTHER},
            id="a trainer's leavings",
        ),
        pytest.param(("adapter_config.json", "adapter_model.safetensors"), {}, id="adapter"),
        pytest.param(
            (*CONFIGS, "model.safetensors", "adapter_model.safetensors"),
            {"adapter_model.safetensors": DUPLICATE},
            id="model with adapter",
        ),
        pytest.param(
            (*CONFIGS, "gptq_model-4bit-128g.safetensors", "quantize_config.json", "modeling_x.py", "vocab.txt"),
            {},
            id="old",
        ),
        pytest.param(
            (
                "config.json",
                "1_Pooling/config.json",
                "onnx/model.onnx",
                "onnx/config.json",
                "model.safetensors",
                ".gitattributes",
            ),
            {"onnx/model.onnx": OTHER, "onnx/config.json": OTHER, ".gitattributes": OTHER},
            id="embedding",
        ),
    ],
)
def test_one_set_of_safe_weights_and_what_loads_it_is_wanted(
    repository: tuple[str, ...], left_out: dict[str, str]
) -> None:
    found = reasons(*repository)
    assert {path: reason for path, reason in found.items() if reason} == left_out


def test_an_index_decides_between_weights() -> None:
    named = {"model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"}
    found = reasons(*CONFIGS, *SHARDS, "draft_head.safetensors", indexed=named)
    assert found["draft_head.safetensors"] == DUPLICATE
    assert "draft_head.safetensors" in taken(*CONFIGS, *SHARDS, "draft_head.safetensors")
    assert taken(*CONFIGS, "model.safetensors", indexed={"not-there.safetensors"}) == {*CONFIGS, "model.safetensors"}


def test_patterns_add_and_take_away() -> None:
    names = (*CONFIGS, "a.Q4_K_M.gguf", "a.Q8_0.gguf", "sub/b.gguf", "model.safetensors")
    assert taken(*names, include=["*Q4_K_M.gguf"]) == {*CONFIGS, "model.safetensors", "a.Q4_K_M.gguf"}
    assert taken(*names, include=["*.gguf"], exclude=["*Q8*", "model.*"]) == {*CONFIGS, "a.Q4_K_M.gguf", "sub/b.gguf"}
    assert taken(*names, include=["sub/"]) == {*CONFIGS, "model.safetensors", "sub/b.gguf"}
    assert taken(*names, everything=True) == set(names)
    assert reasons(*names, everything=True, exclude=["*.gguf"])["sub/b.gguf"] == EXCLUDED


# Names


@pytest.mark.parametrize(
    ("written", "wanted"),
    [
        ("owner/name", Wanted("owner/name")),
        ("gpt2", Wanted("gpt2")),
        ("owner/name@", Wanted("owner/name")),
        ("owner/name/", Wanted("owner/name")),
        (" owner/name@v1.0 ", Wanted("owner/name", "v1.0")),
        ("owner/name@refs/pr/3", Wanted("owner/name", "refs/pr/3")),
        ("hf://owner/name@abc", Wanted("owner/name", "abc")),
        ("https://hub.example/owner/name", Wanted("owner/name")),
        ("https://hub.example/owner/name/tree/v%2F1", Wanted("owner/name", "v/1")),
        ("hub.example/owner/name", Wanted("owner/name")),
        ("https://mirror.example/hf/owner/name/tree/v1", Wanted("owner/name", "v1")),
        ("https://hub.example/owner/name/blob/main/config.json?x=1", Wanted("owner/name")),
        (
            "TheBloke/Llama-2-7B-GPTQ@gptq-4bit-32g-actorder_True",
            Wanted("TheBloke/Llama-2-7B-GPTQ", "gptq-4bit-32g-actorder_True"),
        ),
    ],
)
def test_names_are_read_as_people_write_them(monkeypatch: pytest.MonkeyPatch, written: str, wanted: Wanted) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "https://mirror.example/hf/")
    assert parse_name(written) == wanted


@pytest.mark.parametrize(
    "written",
    [
        "",
        "a/b/c",
        "../b",
        "a/..",
        "a b/c",
        "a/b@../x",
        "a/b@x y",
        "a/b--c",
        "/etc/passwd",
        "a/\x1b[31m",
        "a/b@-\0",
        "https://[bad/owner/name",
        "hub.example/datasets/a/b",
    ],
)
def test_what_is_no_name_is_refused_in_words(written: str) -> None:
    with pytest.raises(UsageError) as failure:
        parse_name(written)
    assert "\x1b" not in str(failure.value)


@given(st.text())
def test_any_text_is_a_name_or_refused(text: str) -> None:
    looks_like_repository(text)
    try:
        wanted = parse_name(text)
    except UsageError:
        return
    assert ".." not in f"{wanted.repository}/{wanted.revision}"
    assert not wanted.repository.startswith("/")


# Plans


def planned(*sizes: int, present: int = 0, free: int | None = 10**12) -> Plan:
    listed = [RemoteFile(f"model-{number}.safetensors", size, sha256="0" * 64) for number, size in enumerate(sizes)]
    described = Described(
        wanted=Wanted("a/b"),
        commit="c" * 40,
        offers=tuple(offer_files(listed)),
        cache="/nowhere/at/all",
        present={listed[0].path: present},
    )
    plan = make_plan(described)
    return Plan(described=described, files=plan.files, missing=plan.missing, free=free)


def test_what_is_there_need_not_come_again() -> None:
    plan = planned(100, 50, present=70)
    assert (plan.total, plan.missing) == (150, 80)
    assert plan.retaken({"model-1.safetensors"}).missing == 50


def test_a_disk_without_room_says_how_much_is_lacking() -> None:
    plan = planned(500 * MIB, free=400 * MIB)
    with pytest.raises(StorageError) as failure:
        plan.task()
    assert "500 MiB to come, 400 MiB free" in str(failure.value)
    assert "Free 164 MiB" in str(failure.value)
    assert planned(500 * MIB, free=None).task().files
    assert planned(500 * MIB, present=500 * MIB, free=0).task().files, "what is all here needs no room"


def test_lines_are_safe_to_show() -> None:
    described = Described(
        wanted=Wanted("a/b"), commit="c", offers=tuple(offer_files(files("x\x1b[2J.gguf"))), cache="/"
    )
    lines = plan_lines(make_plan(described), None)
    assert "GGUF files: take the one you want" in lines[-1]
    assert not any("\x1b" in line for line in lines)


# Progress


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def moved(path: str, done: int, received: int, state: str = "fetching", note: str = "") -> Moved:
    return Moved(files=(FileMoved(path=path, done=done, state=state, note=note),), received=received)  # type: ignore[arg-type]


def test_speed_counts_what_came_now_and_not_what_was_there() -> None:
    clock = Clock()
    tracker = Tracker(files("a", "b", size=1000), clock)
    clock.now = 1.0
    tracker.take(moved("a", 600, 0))
    clock.now = 3.0
    progress = tracker.take(moved("a", 800, 200))
    assert (progress.done, progress.total, progress.files_done) == (800, 2000, 0)
    assert progress.rate == pytest.approx(200 / 3)
    assert progress.seconds_left == pytest.approx(1200 / (200 / 3))
    for second in range(4, 30):
        clock.now = float(second)
        progress = tracker.take(moved("b", second, 200))
    assert progress.rate == 0, "a stall shows within some seconds"
    assert progress.seconds_left is None


def test_waiting_is_said_only_while_nothing_moves() -> None:
    tracker = Tracker(files("a", "b", size=1000), Clock())
    assert tracker.take(moved("a", 1, 1, note="the connection broke off")).note
    assert not tracker.take(moved("b", 1, 2)).note
    done = tracker.take(moved("a", 1000, 1000, "done"))
    assert done.files_done == 1
    assert "1001 B of 2.0 KiB" in progress_line(done)


@pytest.mark.parametrize(("seconds", "words"), [(0.4, "0 s"), (89, "89 s"), (600, "10 min"), (12000, "3 h 20 min")])
def test_times_are_written_as_people_say_them(seconds: float, words: str) -> None:
    assert duration(seconds) == words
