"""`quantchat run` in scripts: what goes in, what comes out, what is kept, and the exit status."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from unittest.mock import Mock

import pytest
from click.testing import CliRunner

from disks import mounted
from quantchat.cli import linerun, main
from unit.run.conftest import RunShell

USER, ASSISTANT, SYSTEM = "user", "assistant", "system"


def exchange(*questions: str) -> list[tuple[str, str]]:
    return [row for text in questions for row in ((USER, text), (ASSISTANT, f"You said: {text}"))]


def events(out: str) -> list[dict[str, object]]:
    return [json.loads(line) for line in out.splitlines()]


def test_prompts_of_the_command_line_are_asked_in_turn(shell: RunShell) -> None:
    status, out, err = shell.run("-p", "one", "-p", "exit", "-o", shell.file(), stdin="not read")
    assert (status, out, err) == (0, "You said: one\nYou said: exit\n", "")
    assert shell.said() == exchange("one", "exit")


def test_a_dash_asks_all_of_standard_input(shell: RunShell) -> None:
    status, out, _ = shell.run("-p", "-", "-p", "then", stdin='two\n"""\nlines\n')
    assert (status, out) == (0, 'You said: two\n"""\nlines\nYou said: then\n')


@pytest.mark.parametrize("word", ["exit", " QUIT "])
def test_lines_are_questions_until_a_word_leaves_and_saves(shell: RunShell, word: str) -> None:
    text = f'one\n\n"""\ntwo\nexit\n"""\nthree \\\nfour\n{word}\nnever\n'
    status, _, err = shell.run("-io", shell.file(), stdin=text)
    assert (status, err) == (0, "")
    assert shell.said() == exchange("one", "two\nexit", "three \nfour")


def test_the_end_of_input_leaves_and_saves(shell: RunShell) -> None:
    status, out, _ = shell.run("-o", shell.file(name="h.jsonl"), stdin='one\n"""two')
    assert (status, out) == (0, "You said: one\nYou said: two\n")
    rows = [json.loads(line) for line in (shell.folder / "h.jsonl").read_text().splitlines()]
    assert [(row["role"], row["content"]) for row in rows] == exchange("one", "two")


def test_a_pipe_gets_no_control_codes_and_no_progress(shell: RunShell) -> None:
    shell.script(load={"seconds": 0.1})
    status, out, err = shell.run("-p", "hostile", "-o", shell.file(), TERM="xterm-256color")
    assert (status, out, err) == (0, "a[31mred]0;title\tb\nc\n", "")
    assert shell.said()[1] == (ASSISTANT, "a\x1b[31mred\x1b]0;title\x07\tb\r\nc")


def test_json_lines(shell: RunShell) -> None:
    status, out, err = shell.run("--json", "-p", "pondered", "-p", "hostile", "-o", shell.file())
    assert (status, err) == (0, "")
    said = events(out)
    kinds = list(dict.fromkeys(str(event["event"]) for event in said))
    assert kinds == ["loading", "loaded", "text", "answer", "saved"]
    loaded = next(event for event in said if event["event"] == "loaded")
    assert (loaded["name"], loaded["device"], loaded["context_window"]) == ("alpha-GPTQ", "cpu", 2048)
    first, second = (event for event in said if event["event"] == "answer")
    assert (first["text"], first["thinking"]) == ("The answer.", "First this.\nThen that.")
    assert first["finish_reason"] == "stop"
    for channel, whole in (("thinking", first["thinking"]), ("answer", f"{first['text']}{second['text']}")):
        pieces = [str(event["text"]) for event in said if event.get("channel") == channel]
        assert "".join(pieces) == whole
    assert said[-1]["path"] == shell.file()


def test_json_tells_of_failures_too(shell: RunShell) -> None:
    status, out, err = shell.run("--json", "-p", "halfway")
    assert status == 5
    assert (events(out)[-1]["event"], events(out)[-1]["code"]) == ("error", "x")
    assert "It broke" in err


def test_the_system_prompt_stands_first_and_the_model_sees_it(shell: RunShell) -> None:
    path = shell.file(("system", "old"), *exchange("before"))
    status, out, _ = shell.run("--json", "--system", "a new one", "-io", path, "-p", "now")
    assert status == 0
    assert shell.said() == [(SYSTEM, "a new one"), *exchange("before", "now")]
    statistics = next(event["statistics"] for event in events(out) if event["event"] == "answer")
    # Two tokens of each message beside its words, and one before the answer.
    assert statistics["prompt_tokens"] == 5 + 3 + 5 + 3 + 1  # type: ignore[index]
    assert shell.run("--system", "", "-io", path, "-p", "more")[0] == 0
    assert shell.said() == exchange("before", "now", "more")


def test_settings_give_a_new_history_its_system_prompt(shell: RunShell) -> None:
    config = shell.folder / "home" / "config"
    config.mkdir(parents=True)
    (config / "config.toml").write_text('system_prompt = "Always."\n[sampling]\nmax_new_tokens = 2\n')
    shell.run("-p", "one", "-io", shell.file())
    assert shell.said() == [(SYSTEM, "Always."), (USER, "one"), (ASSISTANT, "You said:")]
    old = shell.file(*exchange("old"), name="old.json")
    shell.run("-p", "two", "-io", old, "--max-tokens", "3")
    assert shell.said("old.json") == [*exchange("old"), (USER, "two"), (ASSISTANT, "You said: two")]


def test_a_history_is_gone_on_with_and_kept_elsewhere(shell: RunShell) -> None:
    source = shell.file(*exchange("old"), name="in.json")
    before = Path(source).read_bytes()
    status, out, _ = shell.run("-i", source, "-o", shell.file(), stdin="new\n")
    assert (status, out) == (0, "You said: new\n")
    assert shell.said() == exchange("old", "new")
    assert Path(source).read_bytes() == before


def test_without_a_file_nothing_is_written(shell: RunShell) -> None:
    source = shell.file(*exchange("old"))
    before = Path(source).read_bytes()
    shell.run("-i", source, "-p", "new")
    assert Path(source).read_bytes() == before
    shell.run("-io", shell.file(name="none.json"), stdin="")
    shell.run("-o", source, stdin="exit\n")
    assert Path(source).read_bytes() == before
    assert not (shell.folder / "none.json").exists()


def test_a_question_that_stands_open_is_answered_first(shell: RunShell) -> None:
    path = shell.file((USER, "open"))
    assert shell.run("-io", path, stdin="next\n")[:2] == (0, "You said: open\nYou said: next\n")
    assert shell.said() == exchange("open", "next")


def test_asking_the_open_question_again_does_not_double_it(shell: RunShell) -> None:
    piped = json.dumps([{"role": "user", "content": "open"}])
    assert shell.run("-i", "-", "-o", shell.file(), "-p", "open", stdin=piped)[:2] == (0, "You said: open\n")
    assert shell.said() == exchange("open")


@pytest.mark.parametrize("option", ["-i", "-o", "-io"])
def test_a_file_that_is_no_history_stops_everything_and_stays(shell: RunShell, option: str) -> None:
    path = shell.folder / "notes.txt"
    path.write_text("my only copy")
    status, out, err = shell.run(option, str(path), "-p", "one")
    assert (status, out) == (3, "")
    assert "is no history of messages" in err
    assert path.read_text() == "my only copy"


def test_a_history_that_changed_meanwhile_is_not_replaced(shell: RunShell) -> None:
    path = shell.file(*exchange("old"))
    with shell.start("-io", path) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write("one\n")
        process.stdin.flush()
        assert process.stdout.readline() == "You said: one\n"
        shell.file(*exchange("theirs"))
        _, err = process.communicate("two\n")
    assert process.returncode == 3
    assert shell.said() == exchange("theirs")
    (beside,) = shell.folder.glob("h.*.json")
    assert shell.said(beside.name) == exchange("old", "one", "two")
    assert str(beside) in err


def test_a_disk_that_is_full_costs_no_word(shell: RunShell, fill_disk: Callable[[Path], Path]) -> None:
    with mounted(shell.folder / "disk", "size=64k"):
        path = shell.folder / "disk" / "h.json"
        path.write_text("[]")
        fill_disk(path.parent)
        status, out, err = shell.run("-io", str(path), "-p", "one", "-p", "two")
        assert path.read_text() == "[]"
    assert (status, out) == (3, "You said: one\nYou said: two\n")
    assert err.count("The disk is full") == 1
    (kept,) = (shell.folder / "home" / "data" / "histories").iterdir()
    assert str(kept) in err
    assert [row["content"] for row in json.loads(kept.read_bytes())] == [text for _, text in exchange("one", "two")]


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (("-io", "a", "-o", "b"), 2, "-io names the file"),
        (("-o", "-"), 2, "-o takes a file"),
        (("-io", "-"), 2, "-o takes a file"),
        (("-i", "-", "-p", "-"), 2, "both want standard input"),
        (("-p", ""), 2, "-p asks nothing"),
        (("-p", " \x1b\n"), 2, "-p asks nothing"),
        (("--temperature", "NaN"), 2, "temperature cannot be NaN"),
        (("--logit-bias", '{"a": 1e999}'), 2, "logit_bias cannot be"),
        (("--temperature", "hot"), 2, "temperature cannot be hot"),
        (("--top-k", "-1"), 2, "Allowed: a whole number from 0 on"),
        (("--preset", "exakt"), 2, "Did you mean exact"),
        (("--kernel", "magic"), 2, "is no kernel"),
        (("-i", "nowhere.json"), 3, "nowhere.json"),
        (("-o", "no/such/folder/h.json"), 2, "there is no folder"),
        (("-o", "/dev/null"), 2, "no regular file"),
        (("--template", "nowhere.jinja"), 2, "nowhere.jinja"),
    ],
)
def test_what_is_wrong_is_said_before_anything_is_loaded(
    shell: RunShell, arguments: tuple[str, ...], status: int, words: str
) -> None:
    shell.script(load={"crash": True})
    ended = CliRunner().invoke(
        main, ["--models-dir", str(shell.models), "run", "alpha", "-p", "one", *arguments], env=shell.environment
    )
    assert (ended.exit_code, ended.stdout) == (status, "")
    assert words in ended.stderr


@pytest.mark.parametrize(("model", "status"), [("nobody", 4), ("server:box/x", 2)])
def test_a_model_that_is_not_there(shell: RunShell, model: str, status: int) -> None:
    ended, out, err = shell.run_with(model, "-p", "one")
    assert (ended, out) == (status, "")
    assert err.startswith("quantchat: ")


def test_ctrl_c_before_anything_was_begun_says_nothing(shell: RunShell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(linerun, "load_settings", Mock(side_effect=KeyboardInterrupt))
    assert shell.run("-p", "one") == (130, "", "")


def test_a_model_that_does_not_load(shell: RunShell) -> None:
    shell.script(load={"fail": {"code": "oom", "title": "Too big\x1b[2J", "detail": "", "remedy": "Buy more"}})
    status, out, err = shell.run("-p", "one", "-io", shell.file())
    assert (status, out) == (5, "")
    assert err == "quantchat: Too big[2J. Buy more.\n"
    assert not (shell.folder / "h.json").exists()


def test_an_answer_that_fails_ends_a_script_and_its_beginning_is_kept(shell: RunShell) -> None:
    status, out, err = shell.run("-p", "halfway", "-p", "never", "-io", shell.file())
    assert (status, out) == (5, "Only half\n")
    assert "It broke" in err
    assert shell.said() == [(USER, "halfway"), (ASSISTANT, "Only half")]


def test_a_question_that_is_refused_is_not_kept(shell: RunShell) -> None:
    status, out, _ = shell.run("-io", shell.file(), stdin="one\nrefused\nnever\n")
    assert (status, out) == (5, "You said: one\n")
    assert shell.said() == exchange("one")


def test_a_refused_question_is_not_taken_out_of_a_file_that_held_it(shell: RunShell) -> None:
    path = shell.file(*exchange("old"), (USER, "refused"))
    before = Path(path).read_bytes()
    for arguments in ((), ("-p", "refused")):
        assert shell.run("-io", path, *arguments)[:2] == (5, "")
        assert Path(path).read_bytes() == before


def test_an_engine_that_dies_ends_a_script(shell: RunShell) -> None:
    status, out, err = shell.run("-p", "crash", "-o", shell.file())
    assert (status, out) == (5, "one two\n")
    assert "The engine stopped (exit code 70)" in err
    assert err.count("The engine stopped") == 1
    assert shell.said() == [(USER, "crash"), (ASSISTANT, "one two")]


def test_sampling_comes_from_options_then_the_preset(shell: RunShell) -> None:
    (shell.folder / "home" / "config" / "presets").mkdir(parents=True)
    (shell.folder / "home" / "config" / "presets" / "mine.toml").write_text("seed = 5\nmax_new_tokens = 1\n")
    status, out, err = shell.run("--preset", "mine", "--max-tokens", "2", "-p", "one two", "-p", "again", "--json")
    assert (status, err) == (0, "")
    for answer in (event for event in events(out) if event["event"] == "answer"):
        assert (answer["text"], answer["finish_reason"]) == ("You said:", "length")
        assert answer["statistics"]["seed"] == 5  # type: ignore[index]


def test_an_answer_that_was_cut_says_so_and_what_it_cost(shell: RunShell) -> None:
    status, out, err = shell.run("--max-tokens", "2", "-p", "one", "-v", "--stop", "a", "--stop", '"b')
    assert (status, out) == (0, "You said:\n")
    first, second = err.splitlines()
    assert first == "The answer was cut after 2 tokens (--max-tokens)."
    assert second.startswith("2 tokens at ")


def test_what_is_dropped_from_the_context_is_said(shell: RunShell) -> None:
    shell.script(window=30)
    path = shell.file(*exchange("an old question of many words that fill the window up"))
    status, _, err = shell.run("-io", path, "-p", "new", "--max-tokens", "10")
    assert status == 0
    assert "did not see the 2 oldest messages" in err
    assert len(shell.said()) == 4


@pytest.mark.parametrize("shown", [False, True])
def test_thoughts_are_no_part_of_the_answer(shell: RunShell, shown: bool) -> None:
    status, out, err = shell.run("-p", "pondered", "-o", shell.file(), *(["--thinking"] if shown else []))
    assert (status, out) == (0, "The answer.\n")
    assert err == ("First this.\nThen that.\n\n" if shown else "")
    assert shell.said() == [(USER, "pondered"), (ASSISTANT, "The answer.")]


def test_input_that_is_no_text(shell: RunShell) -> None:
    with shell.start("-io", shell.file()) as process:
        assert process.stdin is not None
        process.stdin.buffer.write(b"one\n\xff\xfe\nthree\n")
        out, err = process.communicate()
    assert (process.returncode, out) == (2, "You said: one\n")
    assert "byte 1 of line 2" in err
    assert shell.said() == exchange("one")


def test_neither_textual_nor_torch_is_imported(shell: RunShell) -> None:
    code = f"""
import sys
sys.argv = {["quantchat", "--models-dir", str(shell.models), "run", "alpha", "-p", "one"]!r}
from quantchat.cli import linerun, main
try:
    main()
except SystemExit as end:
    assert not end.code, end.code
print(*sys.modules)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], env=shell.environment, capture_output=True, text=True, check=True
    )
    answer, modules = done.stdout.splitlines()
    assert answer == "You said: one"
    heavy = {"textual", "torch", "transformers", "gptqmodel", "openai", "llama_cpp", "rich", "numpy"}
    assert not heavy & {name.partition(".")[0] for name in modules.split()}
