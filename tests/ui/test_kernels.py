"""What the screen tells of kernels, loads, and models that are gone for a while."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from textual.widgets import Static

from quantchat.engine.protocol import KernelRefusal, LoadReport
from quantchat.ui import clipboard
from quantchat.ui.diagnosis import kernel_text
from quantchat.ui.screens.dialogs import Frame, TextScreen
from ui.rig import SIZES, Rig, running

REFUSALS = (
    KernelRefusal("gptq_machete", "its sources would be downloaded, which GPTQMODEL_OFFLINE forbids", "Let it."),
    KernelRefusal("gptq_marlin", "failed after 3 s: RuntimeError: [red]\x1b[31mbroken\x1b[0m"),
)
REPORT = LoadReport(
    path="/models/alpha",
    name="alpha-GPTQ",
    architecture="LlamaForCausalLM",
    device="cuda:0",
    dtype="float16",
    kernel="gptq_exllama_v2",
    layers={"ExllamaV2Linear": 224, "Linear": 1},
    refusals=REFUSALS,
    placement="layers 0-19 on cuda:0 (10.2 GiB + 1.1 GiB KV), layers 20-31 on cuda:1 (6.1 GiB + 700 MiB KV)",
    weight_bytes=4 * 1024**3,
    device_bytes=5 * 1024**3,
    decoding="eager",
    decoding_reason="the capture failed",
    kv_token_bytes=131072,
    kv_budget=8 * 1024**3,
    seconds={"reading weights": 3.25, "warming up": 1.0},
    warnings=("Slow.",),
)


def loaded_name(rig: Rig) -> str:
    report = rig.chat.desk.library.loaded
    return report.name if report else ""


def test_the_words_name_kernel_layers_reasons_decoding_and_seconds() -> None:
    text = kernel_text(REPORT)
    for words in (
        "gptq_exllama_v2 on cuda:0",
        "224 ExllamaV2Linear, 1 Linear",
        "float16",
        "layers 20-31 on cuda:1",
        "quantchat's own loop: the capture failed",
        "128 KiB per token, 8.0 GiB for all sessions",
        "4.2 s: reading weights 3.2 s, warming up 1.0 s",
        "- gptq_machete: its sources would be downloaded, which GPTQMODEL_OFFLINE forbids\n  Let it.",
        "- gptq_marlin: failed after 3 s",
        "Slow.",
    ):
        assert words in text
    assert text.index("gptq_machete") < text.index("gptq_marlin")


def test_nothing_is_said_of_what_there_is_not() -> None:
    plain = LoadReport(path="", name="a", architecture="B", device="cpu", dtype="bfloat16", kernel="dense")
    text = kernel_text(plain)
    assert "Placement" not in text
    assert "KV cache" not in text
    assert "No faster kernel was left out." in text


def test_without_kv_reuse_there_is_no_budget_of_caches() -> None:
    text = kernel_text(msgspec.structs.replace(REPORT, decoding="generate"))
    assert "128 KiB per token\n" in text
    assert "for all sessions" not in text


@pytest.mark.parametrize("size", SIZES)
async def test_the_dialog_shows_and_copies_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: tuple[int, int]
) -> None:
    copied: list[str] = []
    monkeypatch.setattr(clipboard, "send", lambda _app, text, _what: copied.append(text))
    async with running(tmp_path, monkeypatch, size=size) as rig:
        await rig.load()
        library = rig.chat.desk.library
        library.loaded = msgspec.structs.replace(REPORT, path=library.loaded.path)
        await rig.ask("/kernels")
        await rig.until(lambda: isinstance(rig.app.screen, TextScreen) and rig.app.screen.query(Static), "the dialog")
        shown = "\n".join(str(part.content) for part in rig.app.screen.query(Static))
        assert "gptq_exllama_v2 on cuda:0" in shown
        assert "\x1b" not in shown
        assert "[red]" in shown
        frame = rig.app.screen.query_one(Frame)
        assert rig.app.screen.region.contains_region(frame.region)
        await rig.pilot.press("c")
        assert copied
        assert "gptq_marlin: failed after 3 s" in copied[0]
        await rig.pilot.press("escape")
        await rig.until(lambda: rig.app.screen is rig.chat, "the chat")


async def test_without_a_model_there_is_nothing_to_diagnose(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with running(tmp_path, monkeypatch) as rig:
        await rig.ask("/kernels")
        await rig.until(lambda: any("No model is loaded" in n.message for n in rig.app._notifications), "a toast")


async def test_previous_loads_the_model_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with running(tmp_path, monkeypatch) as rig:
        await rig.load("alpha")
        await rig.ask("/previous")
        await rig.until(lambda: any("No other model" in n.message for n in rig.app._notifications), "a toast")
        await rig.load("beta")
        await rig.until(lambda: "beta" in loaded_name(rig), "beta")
        await rig.ask("/previous")
        await rig.until(lambda: "alpha" in loaded_name(rig), "alpha again")


async def test_an_idle_model_is_unloaded_and_loads_again_when_a_prompt_is_sent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "home").mkdir()
    monkeypatch.setenv("QUANTCHAT_HOME", str(tmp_path / "home"))
    from quantchat.store.settings import update_settings

    update_settings(idle_unload_minutes=10)
    async with running(tmp_path, monkeypatch) as rig:
        await rig.load()
        now = [0.0]
        idle = rig.chat.desk.idle
        monkeypatch.setattr(idle, "_clock", lambda: now[0])
        idle.check()
        monkeypatch.setattr(idle, "_since", 0.0)
        now[0] = 601.0
        idle.check()
        await rig.until(lambda: "Unloaded after 10 min idle" in rig.line("activity"), "the note")
        assert "loads again when you send" in rig.line("activity")
        await rig.ask("are you there")
        answers = await rig.answered()
        assert answers[-1].finish == "stop"
        assert "idle" not in rig.line("activity")
