"""Chat templates: which one is taken, what it makes of the sample, and that none of them can do harm."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from quantchat.catalog.contents import list_files
from quantchat.catalog.files import Folder
from quantchat.catalog.rendering import CPU_SECONDS, TEXT_LIMIT
from quantchat.catalog.sample import GUESSED, MOST_LINES, MOST_PIECES, QUESTION, Sample
from quantchat.catalog.template import render_sample, sample_of
from quantchat.catalog.templates import ChatTemplate, read_templates
from quantchat.catalog.tokens import read_tokens
from unit.catalog.corpus import write_gguf
from unit.catalog.model_folders import make_gptq, write_json

CHATML = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def rendered(template: str, folder: Path | None = None) -> Sample:
    return render_sample(ChatTemplate("default", "chat_template.jinja", template), folder)


def folder_with(folder: Path, config: object = None, **files: object) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "config.json", {"model_type": "llama"})
    if config is not None:
        write_json(folder / "tokenizer_config.json", config)
    for name, content in files.items():
        write_json(folder / f"{name}.json", content)
    return folder


# What comes out


def test_the_sample_is_rendered_with_its_special_tokens_apart(tmp_path: Path) -> None:
    config = {"chat_template": "{{ bos_token }}" + CHATML, "bos_token": {"content": "<s>"}, "eos_token": "<|im_end|>"}
    sample = sample_of(
        folder_with(tmp_path, config, special_tokens_map={"additional_special_tokens": ["<|im_start|>"]})
    )
    assert sample is not None
    assert sample.text.startswith("<s><|im_start|>system\nYou are a helpful assistant.<|im_end|>\n")
    assert sample.text.endswith(f"{QUESTION}<|im_end|>\n<|im_start|>assistant\n")
    special = [piece.text for piece in sample.pieces if piece.special]
    assert special[:3] == ["<s>", "<|im_start|>", "<|im_end|>"]
    assert set(special) == {"<s>", "<|im_start|>", "<|im_end|>"}
    assert not any("<|" in piece.text for piece in sample.pieces if not piece.special)
    assert sample.notes == ()


def test_what_transformers_gives_to_templates_is_there() -> None:
    sample = rendered(
        "{%- set ns = namespace(n=0) -%}{%- for m in messages -%}{%- if m.role == 'system' %}{% continue %}{% endif -%}"
        "{%- set ns.n = ns.n + 1 -%}{%- generation -%}{{ m | tojson(sort_keys=true, separators=(',', ':')) }}"
        "{%- endgeneration -%}{%- endfor -%}{{ ns.n }}{{ dict(a=1).a }}{{ strftime_now('%Y') | length }}"
        "{{ tools is none }}{{ documents is none }}{{ 'é<&' | tojson }}"
    )
    assert sample.problem == ""
    assert sample.text.startswith('{"content":"What is the capital of France?","role":"user"}')
    assert sample.text.endswith('314TrueTrue"é<&"')


@pytest.mark.parametrize(
    ("template", "note"),
    [
        (
            "{% if messages[0].role == 'system' %}{{ raise_exception('no system') }}{% endif %}" + CHATML,
            "no system message",
        ),
        ("{% for m in messages %}{% for part in m.content %}{{ part.text }}{% endfor %}{% endfor %}", "list of parts"),
        ("{{ messages[0].content }}", "leaves out what the user says"),
        (CHATML + "<|end_of_nothing|>", "does not know"),
        ("{% for i in range(9999) %}{{ messages }}{% endfor %}", "longer than is shown"),
    ],
)
def test_what_is_odd_about_a_template_is_said(tmp_path: Path, template: str, note: str) -> None:
    sample = rendered(template, folder_with(tmp_path, {}, added_tokens={"<|im_start|>": 1, "<|im_end|>": 2}))
    assert sample.problem == ""
    assert any(note in said for said in sample.notes), sample.notes
    assert 0 < len(sample.text) <= TEXT_LIMIT


@pytest.mark.parametrize(
    ("template", "words"),
    [
        ("{{ raise_exception('only\x1b[31m three\nroles') }}", "only[31m three roles"),
        ("{% for m in %}", "line 1"),
        ("{{ messages[0].content.__class__.__mro__ }}", "unsafe"),
        ("{% set ns = namespace(__init__=1) %}", "underscore"),
        ("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "without an end"),
        ("{{ nothing.at.all }}", "undefined"),
        ("{% include '/etc/passwd' %}", "loader"),
    ],
)
def test_errors_are_one_clean_line(template: str, words: str) -> None:
    problem = rendered(template).problem
    assert words in problem
    assert len(problem.splitlines()) == 1
    assert problem.isprintable()


# Harm


@pytest.mark.parametrize(
    "template",
    [
        "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
        "{{ 9 ** (9 ** (9 ** 9)) }}",
        "{{ 'a' * 10 ** 12 }}",
        "{% set ns = namespace(s='a' * 10 ** 6) %}{% for i in range(99) %}{% set ns.s = ns.s * 9 %}{% endfor %}",
        "{{ '%999999999d' % 1 }}" * 9,
        "{{ [messages] * 10 ** 10 }}",
        "(" * 50_000 + "{{ " + "(" * 50_000,
        "{% if " + "not " * 20_000 + "x %}{% endif %}",
        "{{ raise_exception('a' * 10 ** 8) }}",
        "{{ raise_exception(messages * 10 ** 6) }}",
    ],
    ids=["loops", "powers", "long", "doubling", "padding", "lists", "brackets", "nesting", "words", "objects"],
)
def test_a_hostile_template_ends_soon_and_costs_this_process_nothing(template: str) -> None:
    before, began = _resident(), time.process_time()
    sample = rendered(template)
    assert sample.problem
    assert sample.pieces == ()
    assert len(sample.problem) <= 160
    assert time.process_time() - began < CPU_SECONDS
    assert _resident() - before < 32 * 1024**2


@pytest.mark.parametrize(
    "files",
    [
        {"tokenizer_config.json": '{"chat_template": "x", "a": [' + "0," * 20_000_000 + "0]}"},
        {"tokenizer_config.json": '{"chat_template": "x", "extra_special_tokens": {"messages": "a", "tools": "b"}}'},
        {"chat_template.jinja": "x" * (1024**2 + 1)},
        {"chat_template.jinja": "x", "additional_chat_templates/x.jinja": "y"},
    ],
    ids=["large", "names", "long", "several"],
)
def test_files_of_any_size_cost_this_process_nothing(tmp_path: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    before, began = _resident(), time.process_time()
    sample = sample_of(tmp_path)
    assert sample is None or sample.text == "x" or sample.problem
    assert time.process_time() - began < 0.5
    assert _resident() - before < 8 * 1024**2


def test_a_vocabulary_of_special_tokens_is_cut_up_elsewhere(tmp_path: Path) -> None:
    letters = "abcdefghijklmnopqrstuvwxyz"
    tokens = {f"{one}{two}{three}": 1 for one in letters for two in letters for three in letters}
    folder = folder_with(tmp_path, {"chat_template": "".join(tokens)[:TEXT_LIMIT]}, added_tokens=tokens)
    began = time.process_time()
    sample = sample_of(folder)
    assert time.process_time() - began < 0.5
    assert sample is not None
    assert sample.problem or len(sample.pieces) == MOST_PIECES


@pytest.mark.parametrize("text", ["\n" * TEXT_LIMIT, "a\n" * 9999, "ab" * 9999, "<|x|>" * 3000])
def test_no_more_is_given_than_a_screen_can_draw(tmp_path: Path, text: str) -> None:
    sample = rendered(text, folder_with(tmp_path, {}, added_tokens={"a": 1, "<|x|>": 2}))
    assert 0 < sample.text.count("\n") + len(sample.pieces) <= MOST_LINES + MOST_PIECES
    assert "\n" not in sample.text or sample.text.count("\n") < MOST_LINES
    assert len(sample.pieces) <= MOST_PIECES
    assert "".join(text[: len(sample.text)]) == sample.text
    assert any("longer than is shown" in note for note in sample.notes)


def _resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def test_a_library_in_the_current_folder_is_not_taken_for_jinja(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "jinja2.py").write_text("raise SystemExit('owned')")
    monkeypatch.chdir(tmp_path)
    assert rendered(CHATML).problem == ""


# Where templates stand


def test_a_file_of_its_own_wins_and_named_templates_are_listed(tmp_path: Path) -> None:
    folder_with(tmp_path, {"chat_template": "from the config"})
    assert [t.text for t in read_templates(Folder(tmp_path))] == ["from the config"]
    (tmp_path / "additional_chat_templates").mkdir()
    (tmp_path / "additional_chat_templates" / "tool_use.jinja").write_text("tools " + CHATML)
    alone = sample_of(tmp_path)
    assert alone is not None
    assert (alone.name, alone.file) == ("tool_use", "additional_chat_templates/tool_use.jinja")
    (tmp_path / "chat_template.jinja").write_text(CHATML)
    sample = sample_of(tmp_path)
    assert sample is not None
    assert (sample.name, sample.file, sample.others) == ("default", "chat_template.jinja", ("tool_use",))
    assert not sample.text.startswith("tools")


def test_named_templates_of_the_config(tmp_path: Path) -> None:
    named = [{"name": "rag", "template": "rag"}, {"name": "default", "template": CHATML}, {"name": 3}, "x"]
    sample = sample_of(folder_with(tmp_path, {"chat_template": named}))
    assert sample is not None
    assert (sample.name, sample.others) == ("default", ("rag",))
    several = sample_of(folder_with(tmp_path, {"chat_template": [*named[:1], {"name": "b", "template": "b"}]}))
    assert several is not None
    assert any("called default" in note for note in several.notes)


def test_the_file_of_processors_is_named_as_such(tmp_path: Path) -> None:
    sample = sample_of(folder_with(tmp_path, chat_template={"chat_template": CHATML}))
    assert sample is not None
    assert sample.file == "chat_template.json"
    assert any("processors" in note for note in sample.notes)


@pytest.mark.parametrize("config", [None, {}, {"chat_template": ""}, {"chat_template": {"a": 1}}, {"chat_template": 5}])
def test_no_template(tmp_path: Path, config: object) -> None:
    assert sample_of(folder_with(tmp_path, config)) is None


def test_a_folder_that_is_gone_and_pipes_in_place_of_files(tmp_path: Path) -> None:
    assert sample_of(tmp_path / "gone") is None
    folder = folder_with(tmp_path / "piped", {"chat_template": CHATML})
    os.mkfifo(folder / "chat_template.jinja")
    os.mkfifo(folder / "tokenizer.json")
    sample = sample_of(folder)
    assert sample is not None
    assert sample.file == "tokenizer_config.json"


def test_tokens_from_all_the_places_that_name_them(tmp_path: Path) -> None:
    decoder = {"1": {"content": "<|a|>", "special": True}, "2": {"content": "<tool>"}, "3": None}
    config = {
        "added_tokens_decoder": decoder,
        "eos_token": None,
        "image_token": "<img>",
        "pad_token": {"content": "<p>"},
    }
    folder_with(tmp_path, config, added_tokens={"<b>": 5})
    write_json(
        tmp_path / "tokenizer.json", {"added_tokens": [{"id": 9, "content": "<c>"}], "model": {"vocab": {"x": 1}}}
    )
    tokens = read_tokens(Folder(tmp_path))
    assert tokens.named == {"image_token": "<img>", "pad_token": "<p>"}
    assert tokens.texts == {"<|a|>", "<tool>", "<img>", "<p>", "<b>", "<c>"}


def test_the_longer_of_two_tokens_is_meant(tmp_path: Path) -> None:
    folder = folder_with(tmp_path, {}, added_tokens={"<|end|>": 1, "<|end|>_of": 2})
    sample = rendered("{{ messages[3].content }}<|end|><|end|>_of", folder)
    assert [piece.text for piece in sample.pieces if piece.special] == ["<|end|>", "<|end|>_of"]


def gguf_with(path: Path, template: str | None) -> Path:
    keys = ["key general.architecture str llama"]
    keys += [f"key tokenizer.chat_template str {template}"] if template else []
    write_gguf(path, [*keys, "key tokenizer.ggml.tokens texts 30", "token_embd.weight F32 8x30"])
    return path


def test_the_template_of_a_gguf_file_is_rendered(tmp_path: Path) -> None:
    sample = sample_of(gguf_with(tmp_path / "tiny.gguf", CHATML.replace("\n", " ")))
    assert sample is not None
    assert sample.file == "tiny.gguf"
    assert {piece.text for piece in sample.pieces if piece.special} == {"<|im_start|>", "<|im_end|>"}
    assert sample.notes == (GUESSED,)
    assert sample_of(gguf_with(tmp_path / "none.gguf", None)) is None
    (tmp_path / "bad.gguf").write_bytes(b"GGUF")
    assert sample_of(tmp_path / "bad.gguf") is None


# The files


def test_files_are_listed_with_what_is_odd_about_them(tmp_path: Path) -> None:
    folder = make_gptq(tmp_path / "model")
    (folder / "deep" / "er").mkdir(parents=True)
    (folder / "deep" / "er" / "x.bin").write_bytes(b"12345")
    (folder / "lost").symlink_to("nowhere")
    (folder / "loop").symlink_to("loop")
    (folder / "up").symlink_to("..")
    os.mkfifo(folder / "pipe")
    files = {file.name: file for file in list_files(folder)}
    assert files["deep/er/x.bin"].size == 5
    assert files["config.json"].size == (folder / "config.json").stat().st_size
    assert {name: file.note for name, file in files.items() if file.note} == {
        "lost": "a link to nowhere",
        "loop": "a link to nowhere",
        "up": "a link to a folder",
        "pipe": "not a regular file",
    }
    assert list_files(folder / "config.json")[0].name == "config.json"
    assert list_files(tmp_path / "gone") == ()


def test_all_parts_of_a_split_gguf_are_listed(tmp_path: Path) -> None:
    for name in ("big-00001-of-00002.gguf", "big-00002-of-00002.gguf", "big-00001-of-00003.gguf", "big.gguf"):
        (tmp_path / name).write_bytes(b"GGUF")
    found = [file.name for file in list_files(tmp_path / "big-00001-of-00002.gguf")]
    assert found == ["big-00001-of-00002.gguf", "big-00002-of-00002.gguf"]
