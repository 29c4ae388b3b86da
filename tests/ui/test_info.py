"""The info panel: everything known about a model, also about broken ones, at every size."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest
from rich.cells import cell_len
from textual.widgets import Static

from quantchat.catalog.reader import read_model
from quantchat.domain.models import AttentionSpec, ModelInfo, Problem, QuantSpec, Verdict
from quantchat.domain.sections import Piece, Row, Section, as_text
from quantchat.services.fit import Forecast
from quantchat.services.info import Looked, card, look, sections
from quantchat.ui import clipboard
from quantchat.ui.screens.dialogs import ErrorScreen, Panel
from quantchat.ui.screens.info import LINE_END, InfoScreen, info_content
from quantchat.ui.widgets.models import ModelList
from ui.rig import SIZES, Rig, running
from unit.catalog.model_folders import make_gptq, make_sharded

Patch = pytest.MonkeyPatch
CHATML = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"


def make_models(folder: Path) -> None:
    """A sound model with a template and special tokens, and one whose second shard is missing."""
    sound = make_gptq(folder / "models" / "alpha-GPTQ")
    tokens = {"1": {"content": "<|im_start|>", "special": True}, "2": {"content": "<|im_end|>", "special": True}}
    (sound / "tokenizer_config.json").write_text(json.dumps({"chat_template": CHATML, "added_tokens_decoder": tokens}))
    broken = make_sharded(folder / "models" / "broken")
    (broken / "model-00002-of-00002.safetensors").unlink()


async def opened(rig: Rig) -> InfoScreen:
    await rig.until(lambda: isinstance(rig.app.screen, InfoScreen), "the info panel")
    screen = rig.app.screen
    assert isinstance(screen, InfoScreen)
    await rig.until(lambda: screen.complete, "all of it")
    return screen


def shown(screen: InfoScreen) -> str:
    return str(screen.query_one("#info", Static).content)


@pytest.mark.parametrize("size", SIZES)
async def test_the_panel_shows_a_model_and_scrolls(tmp_path: Path, monkeypatch: Patch, size: tuple[int, int]) -> None:
    make_models(tmp_path)
    async with running(tmp_path, monkeypatch, size=size) as rig:
        await rig.ask("/info alpha")
        screen = await opened(rig)
        await rig.until(lambda: "<|im_start|>user" in shown(screen))
        text = shown(screen)
        for words in ("GPTQ 4b g128", "Act-order", "LlamaForCausalLM", "can run here", "vllm serve", "config.json"):
            assert words in text
        assert f"And of Italy?<|im_end|>{LINE_END}" in text
        assert "AutoModelForCausalLM.from_pretrained(" in text
        assert "gptq_" in text
        panel = screen.query_one(Panel)
        assert panel.size.height >= size[1] - 4
        await rig.until(lambda: panel.max_scroll_y > 0)
        await rig.pilot.press("G")
        await rig.until(lambda: panel.scroll_y == panel.max_scroll_y)
        assert panel.max_scroll_x == 0
        await rig.pilot.press("escape")
        await rig.until(lambda: rig.app.screen is rig.chat)


async def test_a_name_is_no_markup(tmp_path: Path, monkeypatch: Patch) -> None:
    make_gptq(tmp_path / "models" / "model[red]-GPTQ")
    async with running(tmp_path, monkeypatch) as rig:
        await rig.ask("/info model")
        screen = await opened(rig)
        assert "[red]" in screen.query_one(".dialog")._border_title.plain


async def test_a_broken_model_is_explained_and_its_load_too(tmp_path: Path, monkeypatch: Patch) -> None:
    make_models(tmp_path)
    async with running(tmp_path, monkeypatch) as rig:
        await rig.ask("/info broken")
        screen = await opened(rig)
        await rig.until(lambda: "files missing" in shown(screen))
        text = " ".join(shown(screen).split())
        assert "Verdict cannot be loaded: 1 of 2 weight files missing" in text
        assert "Resume the download" in text
        assert "vllm serve" not in text
        await rig.pilot.press("c")
        await rig.until(lambda: any("nothing to run" in note.message for note in rig.app._notifications))
        await rig.pilot.press("enter")
        await rig.until(lambda: isinstance(rig.app.screen, ErrorScreen))


async def test_the_key_in_the_list_opens_it_and_enter_loads(tmp_path: Path, monkeypatch: Patch) -> None:
    make_models(tmp_path)
    async with running(tmp_path, monkeypatch) as rig:
        await rig.pilot.press("ctrl+l")
        rows = rig.chat.query_one(ModelList)
        await rig.until(lambda: rows.has_focus and rows.highlighted_id)
        wanted = next(model for model in rig.chat.desk.library.models if model.path == rows.highlighted_id)
        await rig.pilot.press("I")
        screen = await opened(rig)
        assert screen.model == wanted
        await rig.pilot.press("escape", "G", "I")
        await rig.until(lambda: isinstance(rig.app.screen, InfoScreen) and rig.app.screen is not screen)
        other = await opened(rig)
        assert other.model != wanted
        good = screen if screen.model.loadable else other
        await rig.pilot.press("escape")
        await rig.ask(f"/info {good.model.name}")
        await opened(rig)
        await rig.pilot.press("enter")
        await rig.until(lambda: rig.chat.desk.library.loaded)
        await rig.pilot.press("alt+i")
        assert (await opened(rig)).model.path == good.model.path


async def test_snippets_and_the_whole_text_are_copied(tmp_path: Path, monkeypatch: Patch) -> None:
    make_models(tmp_path)
    sent: list[tuple[str, str]] = []
    monkeypatch.setattr(clipboard, "send", lambda app, text, what: sent.append((text, what)))
    async with running(tmp_path, monkeypatch) as rig:
        await rig.ask("/info alpha")
        await opened(rig)
        await rig.pilot.press("c", "c", "c", "y")
        await rig.until(lambda: len(sent) == 4)
        first, second, again, whole = (text for text, _ in sent)
        assert first == again
        compile(first, "snippet", "exec")
        assert second.startswith("vllm serve ")
        assert "\n" not in second
        assert first.splitlines()[-1] in whole
        assert "<|im_start|>system" in whole
        assert LINE_END not in whole
        assert [what for _, what in sent][:2] == ["the lines with transformers", "the lines with vLLM"]


async def test_the_forecast_comes_when_the_memory_was_looked_at(tmp_path: Path, monkeypatch: Patch) -> None:
    make_models(tmp_path)
    known: list[Forecast] = []
    async with running(tmp_path, monkeypatch) as rig:
        screen = InfoScreen(read_model(tmp_path / "models" / "alpha-GPTQ"), lambda model: known[0] if known else None)
        await rig.app.push_screen(screen)
        await rig.until(lambda: rig.app.screen is screen and "<|im_start|>user" in shown(screen))
        assert "looking at the memory" in shown(screen)
        known.append(Forecast(kernel="gptq_marlin"))
        await rig.until(lambda: "gptq_marlin" in shown(screen).split("vllm serve")[0])
        assert "looking at the memory" not in shown(screen)
        assert screen.complete


async def test_a_name_that_no_model_has_is_said(tmp_path: Path, monkeypatch: Patch) -> None:
    async with running(tmp_path, monkeypatch) as rig:
        await rig.ask("/info nothing")
        await rig.until(lambda: any("No model is called nothing" in note.message for note in rig.app._notifications))
        assert rig.app.screen is rig.chat


async def test_hostile_names_and_templates_do_not_command_the_terminal(tmp_path: Path, monkeypatch: Patch) -> None:
    folder = make_gptq(tmp_path / "models" / "evil\x1b]0;owned\x07[b]\u202e")
    template = "{{ '\\x1b[2J\\u202e' }}[/bold]{{ messages[3].content }}\x9b31m"
    (folder / "tokenizer_config.json").write_text(json.dumps({"chat_template": template, "bos_token": "\x1b[7m"}))
    (folder / "bad\nname\x1b[31m").write_text("x")
    async with running(tmp_path, monkeypatch, size=(80, 24)) as rig:
        await rig.ask("/info evil")
        screen = await opened(rig)
        await rig.until(lambda: "[2J[/bold]And of Italy?" in shown(screen))
        drawn = [segment.text for strip in screen._compositor.render_strips() for segment in strip]
        for text in (shown(screen), as_text(screen.sections), *drawn):
            assert all(letter == "\n" or letter.isprintable() for letter in text)
        assert "bad name" in shown(screen)


# The text


def test_special_tokens_and_line_ends_are_told_apart() -> None:
    section = Section(title="T", pieces=(Piece("<s>", special=True), Piece("a\n\nb"), Piece("</s>", special=True)))
    content = info_content([section], 80)
    assert content.plain == f"T\n  <s>a{LINE_END}\n  {LINE_END}\n  b</s>"
    reversed_ = {content.plain[span.start : span.end] for span in content.spans if "reverse" in str(span.style)}
    assert reversed_ == {"<s>", "</s>"}
    assert as_text([section]) == "T\n  <s>a\n\n  b</s>"


@pytest.mark.parametrize("width", [20, 40, 80, 120])
def test_long_values_are_wrapped_within_the_width(width: int) -> None:
    rows = (Row("Short", "word " * 50), Row("A label that is long", "x" * 200), Row("", "no label " * 20))
    lines = info_content([Section(title="T", rows=rows)], width).plain.split("\n")
    assert max(map(len, lines)) <= max(width, 24)
    assert sum(line.count("word") for line in lines) == 50


@pytest.mark.parametrize("width", [40, 80])
def test_letters_of_two_columns_are_wrapped_within_the_width(width: int) -> None:
    rows = (Row("Path", "/models/" + "漢字" * 60), Row("", "かな " * 40))
    lines = info_content([Section(title="T", rows=rows)], width).plain.split("\n")
    assert max(map(cell_len, lines)) <= width
    assert sum(line.count("漢字") for line in lines) >= 55


def text_of(model: ModelInfo, looked: Looked | None = None) -> str:
    return as_text(sections(card(model, None, looked)))


def test_what_needs_a_package_names_the_command() -> None:
    verdict = Verdict(state="with", reason="It needs the package x.", install="pip install 'x>=1'")
    problem = Problem(code="package-missing", severity="error", cause="X needs x.", remedy="Run: pip install 'x>=1'")
    model = ModelInfo(path="/m", name="m", quant=QuantSpec(method="x"), verdict=verdict, problems=(problem,))
    lines = [" ".join(line.split()) for line in text_of(model).splitlines()]
    assert "Verdict needs something installed. It needs the package x." in lines
    assert "Install pip install 'x>=1'" in lines
    assert "Error X needs x. Run: pip install 'x>=1'" in lines


def test_every_setting_of_a_quantization_is_there(tmp_path: Path) -> None:
    model = read_model(make_gptq(tmp_path / "m", damp_percent=0.07, meta={"quantizer": ["q:1"], "deep": {"er": None}}))
    lines = [" ".join(line.split()) for line in text_of(model).splitlines()]
    for line in ("Bits 4", "Group size 128", "Act-order no", "Symmetric yes", "damp_percent 0.07", "meta.deep.er none"):
        assert line in lines


def test_how_far_its_layers_look_back_is_told() -> None:
    spec = AttentionSpec(full=4, sliding=20, window=512, token_values=100, sliding_values=100, state_values=7)
    text = text_of(ModelInfo(path="/m", name="m", attention=spec))
    assert "4 layers keep every token, 20 the last 512; others a state of fixed size" in text
    assert "Attention" not in text_of(ModelInfo(path="/m", name="m", attention=AttentionSpec(full=4, token_values=9)))


def test_all_problems_and_all_files_are_listed(tmp_path: Path) -> None:
    folder = make_sharded(tmp_path / "m")
    (folder / "tokenizer.json").unlink()
    (folder / "model-00001-of-00002.safetensors").unlink()
    for number in range(60):
        (folder / f"extra-{number:02d}.txt").write_bytes(b"x" * 100)
    model = read_model(folder)
    text = text_of(model, look(model))
    assert all(problem.cause in text and problem.remedy in text for problem in model.problems)
    assert len(model.problems) >= 2
    assert "in 2" in text
    assert "further files" in text


def test_a_model_that_is_gone_or_is_a_file_is_no_obstacle(tmp_path: Path) -> None:
    gone = ModelInfo(path=str(tmp_path / "gone"), name="gone")
    assert look(gone) == Looked()
    assert "Path" in text_of(gone, look(gone))
    file = tmp_path / "x.gguf"
    file.write_bytes(b"GGUF")
    gguf = ModelInfo(path=str(file), name="x", container="gguf")
    assert [entry.name for entry in look(gguf).files] == ["x.gguf"]
    msgspec.json.encode(card(gguf, None, look(gguf)))
