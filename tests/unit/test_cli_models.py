"""`quantchat models` through the installed command: the list, everything about one model, and removal."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from unit.catalog.corpus import build
from unit.catalog.model_folders import make_dense, make_gptq, make_sharded

SCRIPT = Path(sys.executable).parent / "quantchat"


def environment(home: Path) -> dict[str, str]:
    return os.environ | {"QUANTCHAT_HOME": str(home), "HF_HUB_CACHE": str(home / "hub"), "HOME": str(home / "user")}


def quantchat(home: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(SCRIPT), *arguments],
        capture_output=True,
        text=True,
        env=environment(home),
        stdin=subprocess.DEVNULL,
    )


def on_a_terminal(home: Path, *arguments: str, typed: bytes = b"", columns: int = 100) -> tuple[int, str]:
    """Run it on a pseudo-terminal; return its exit code and what was written there."""
    ours, theirs = pty.openpty()
    os.write(ours, typed)
    process = subprocess.Popen(
        [sys.executable, str(SCRIPT), *arguments],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env=environment(home) | {"COLUMNS": str(columns), "LINES": "24", "TERM": "xterm-256color"},
    )
    os.close(theirs)
    written = b""
    while True:
        try:
            piece = os.read(ours, 65536)
        except OSError:
            break
        if not piece:
            break
        written += piece
    os.close(ours)
    return process.wait(), written.decode()


@pytest.fixture
def models(tmp_path: Path) -> Path:
    folder = tmp_path / "models"
    make_gptq(folder / "alpha-GPTQ")
    make_dense(folder / "beta-instruct")
    (make_sharded(folder / "gamma-broken") / "model-00002-of-00002.safetensors").unlink()
    return folder


def names(done: subprocess.CompletedProcess[str]) -> list[str]:
    assert done.returncode == 0, done.stderr
    return [line.split("  ")[0] for line in done.stdout.splitlines()]


# The list


def test_lines_for_programs_are_sorted_and_filtered_by_words(tmp_path: Path, models: Path) -> None:
    done = quantchat(tmp_path, "models", "--models-dir", str(models))
    assert names(done) == ["alpha-GPTQ", "beta-instruct", "gamma-broken"]
    alpha, _, gamma = done.stdout.splitlines()
    assert alpha == f"alpha-GPTQ  GPTQ 4b g128  {alpha.split('  ')[2]}  {models / 'alpha-GPTQ'}"
    assert "cannot load: 1 of 2 weight files missing" in gamma
    assert names(quantchat(tmp_path, "--models-dir", str(models), "models", "GPTQ", "4b")) == ["alpha-GPTQ"]
    assert names(quantchat(tmp_path, "models", "list", "beta", "--models-dir", str(models))) == ["beta-instruct"]
    nothing = quantchat(tmp_path, "models", "--models-dir", str(models), "alpha", "beta")
    assert (nothing.returncode, nothing.stdout) == (0, "")
    assert "None of 3 models holds alpha beta" in nothing.stderr


@pytest.mark.parametrize(
    "order", [["models", "--sort", "size", "--json", "a"], ["models", "a", "--json", "--sort", "size"]]
)
def test_json_is_an_array_of_models_with_their_verdicts(tmp_path: Path, models: Path, order: list[str]) -> None:
    found = json.loads(quantchat(tmp_path, "--models-dir", str(models), *order).stdout)
    assert {model["name"]: model["loadable"] for model in found} == {
        "alpha-GPTQ": True,
        "beta-instruct": True,
        "gamma-broken": False,
    }
    assert all(model["verdict"]["state"] == "runs" for model in found)
    sizes = [model["weight_bytes"] for model in found]
    assert sizes == sorted(sizes, reverse=True)


# fmt: off
FIELDS = {
    "architecture", "attention", "container", "context_window", "copies", "disk_bytes",
    "files", "has_chat_template", "kind", "loadable", "model_type", "modified",
    "name", "parameters", "path", "problems", "quant", "remote_code",
    "revision", "root", "server", "shape", "tied", "verdict", "weight_bytes",
    "weights",
}
# fmt: on
"""What programs may rely on; a field is added, not taken away."""


def test_json_has_the_same_fields_for_every_model(tmp_path: Path, models: Path) -> None:
    (models / "delta").mkdir()
    (models / "delta" / "config.json").write_text('{"quantization_config": {"quant_method": "x", "bits": Infinity}}')
    (models / "漢字\x9b31m").mkdir()
    (models / "漢字\x9b31m" / "config.json").write_text("not JSON")
    written = quantchat(tmp_path, "models", "--json", "--models-dir", str(models)).stdout
    assert written.isascii()
    found = json.loads(written, parse_constant=lambda word: pytest.fail(word))
    assert len(found) == 5
    assert all(set(model) == FIELDS for model in found)
    for part in ("quant", "verdict", "shape"):
        assert len({frozenset(model[part]) for model in found}) == 1
    shown = quantchat(tmp_path, "models", "show", "delta", "--json", "--models-dir", str(models)).stdout
    assert shown.isascii()
    assert json.loads(shown)["model"] == next(model for model in found if model["name"] == "delta")


def test_a_pipe_that_closes_early_is_no_error_to_read_about(tmp_path: Path) -> None:
    for number in range(300):
        make_dense(tmp_path / "models" / f"a-model-with-a-name-as-long-as-real-ones-have-{number}")
    command = [sys.executable, str(SCRIPT), "models", "--models-dir", str(tmp_path / "models")]
    for extra in ([], ["--json"]):
        process = subprocess.Popen(
            [*command, *extra], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment(tmp_path)
        )
        assert process.stdout is not None
        process.stdout.read(1)
        process.stdout.close()
        assert process.stderr is not None
        assert process.stderr.read() == b""
        process.stderr.close()
        process.wait()


@pytest.mark.parametrize("columns", [40, 80, 200])
def test_why_a_model_cannot_be_loaded_is_seen_at_every_width(tmp_path: Path, models: Path, columns: int) -> None:
    code, written = on_a_terminal(tmp_path, "models", "--models-dir", str(models), columns=columns)
    assert code == 0
    lines = written.replace("\r", "").splitlines()
    assert all(len(line) <= columns for line in lines)
    assert "cannot load: 1 of 2 weight" in written
    assert ("WINDOW" in lines[0]) == (columns > 40)


@pytest.mark.parametrize("columns", [80, 200])
def test_what_to_install_for_a_model_is_seen_in_the_list(tmp_path: Path, columns: int) -> None:
    build("aqlm-llama2-7b-2bit", tmp_path)
    folder = str(tmp_path / "aqlm-llama2-7b-2bit")
    words = "needs a package: pip install 'aqlm[cpu,gpu]"
    assert words in quantchat(tmp_path, "models", "--models-dir", folder).stdout
    assert words in on_a_terminal(tmp_path, "models", "--models-dir", folder, columns=columns)[1]


def test_a_terminal_gets_an_aligned_table(tmp_path: Path, models: Path) -> None:
    make_dense(models / "漢字")
    code, written = on_a_terminal(tmp_path, "models", "--models-dir", str(models), "--sort", "fit", columns=160)
    assert code == 0
    head, *rows = written.replace("\r", "").splitlines()
    assert head.split() == ["MODEL", "QUANTIZATION", "SIZE", "WEIGHTS", "WINDOW"]
    place = head.index("QUANTIZATION")
    assert rows[0][place:].startswith(("GPTQ 4b g128", "unquantized"))
    assert rows[-1].startswith("!  gamma-broken")
    assert all(len(row) <= 160 for row in rows)
    wide = next(row for row in rows if "漢字" in row)
    assert wide.index("unquantized") == place - 2


def test_no_models_and_wrong_options_are_said(tmp_path: Path) -> None:
    done = quantchat(tmp_path, "models")
    assert (done.returncode, done.stdout) == (0, "")
    assert "quantchat demo" in done.stderr
    assert quantchat(tmp_path, "models", "--sort", "colour").returncode == 2
    assert quantchat(tmp_path, "models", "show").returncode == 2


# One model


def test_everything_about_a_model_as_text_and_json(tmp_path: Path, models: Path) -> None:
    shown = quantchat(tmp_path, "models", "show", "alpha", "--models-dir", str(models))
    assert shown.returncode == 0
    for words in (
        "can run here",
        "GPTQ 4b g128",
        "Symmetric",
        "And of Italy?",
        "from_pretrained(",
        "vllm serve",
        "free",
    ):
        assert words in shown.stdout
    assert "\x1b" not in shown.stdout
    known = json.loads(quantchat(tmp_path, "--models-dir", str(models), "models", "show", "alpha", "--json").stdout)
    assert known["model"]["loadable"] is True
    assert known["forecast"]["judgement"]["fit"] in ("fits", "tight", "too big")
    assert [snippet["title"] for snippet in known["snippets"]] == ["transformers", "vLLM"]
    assert "model.safetensors" in {file["name"] for file in known["looked"]["files"]}


def test_broken_and_unknown_models(tmp_path: Path, models: Path) -> None:
    shown = quantchat(tmp_path, "models", "show", str(models / "gamma-broken"))
    assert shown.returncode == 0
    assert "Resume the download" in shown.stdout
    unknown = quantchat(tmp_path, "models", "show", "delta", "--models-dir", str(models))
    assert unknown.returncode == 4
    assert "No model is called delta" in unknown.stderr
    assert "Traceback" not in unknown.stderr


def test_special_tokens_stand_out_on_a_terminal_and_foreign_text_commands_nothing(tmp_path: Path) -> None:
    folder = make_gptq(tmp_path / "models" / "evil\x1b]0;owned\x07")
    config = {"chat_template": "<s>\x1b[2J{{ messages[3].content }}", "bos_token": "<s>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    (folder / "a\x1b[31m\nb").write_text("x")
    code, written = on_a_terminal(tmp_path, "models", "show", "evil", "--models-dir", str(folder.parent))
    assert code == 0
    assert "\x1b[7m<s>\x1b[0m" in written
    for sequence in ("\x1b]0;", "\x1b[2J", "\x1b[31m\n", "\x07"):
        assert sequence not in written
    plain = quantchat(tmp_path, "models", "show", "evil", "--models-dir", str(folder.parent)).stdout
    assert all(letter == "\n" or letter.isprintable() for letter in plain)


# Removal


def test_removal_says_what_goes_and_asks(tmp_path: Path, models: Path) -> None:
    folder = models / "alpha-GPTQ"
    options = ("--models-dir", str(models))
    unasked = quantchat(tmp_path, "models", "rm", "alpha", *options)
    assert unasked.returncode == 2
    assert "--yes" in unasked.stderr
    assert str(folder) in unasked.stdout
    assert "frees" in unasked.stdout
    code, written = on_a_terminal(tmp_path, "models", "rm", "alpha", *options, typed=b"n\n")
    assert code == 130
    assert "Delete alpha-GPTQ?" in written
    assert folder.is_dir()
    code, written = on_a_terminal(tmp_path, "models", "rm", "alpha", *options, typed=b"y\n")
    assert code == 0
    assert "Removed alpha-GPTQ." in written
    assert not folder.exists()
    part = quantchat(tmp_path, "models", "rm", "gamma", "--yes", *options)
    assert part.returncode == 2
    assert "gamma is only a part of the name gamma-broken" in part.stderr
    assert quantchat(tmp_path, "models", "rm", "Gamma-broken", "--yes", *options).returncode == 0
    assert [path.name for path in models.iterdir()] == ["beta-instruct"]


def test_no_answer_is_no(tmp_path: Path, models: Path) -> None:
    code, written = on_a_terminal(tmp_path, "models", "rm", "alpha", "--models-dir", str(models), typed=b"\x04")
    assert code == 130
    assert "Nothing was deleted" in written
    assert (models / "alpha-GPTQ" / "model.safetensors").exists()


def test_the_question_is_seen_where_the_output_goes_elsewhere(tmp_path: Path, models: Path) -> None:
    ours, theirs = pty.openpty()
    os.write(ours, b"y\n")
    done = subprocess.run(
        [sys.executable, str(SCRIPT), "models", "rm", "alpha", "--models-dir", str(models)],
        stdin=theirs,
        capture_output=True,
        text=True,
        env=environment(tmp_path),
    )
    os.close(ours)
    os.close(theirs)
    assert done.returncode == 0
    assert "Delete alpha-GPTQ?" in done.stderr
    assert "Delete alpha-GPTQ?" not in done.stdout


def test_what_must_stay_is_refused(tmp_path: Path, models: Path) -> None:
    outside = make_gptq(tmp_path / "outside" / "delta")
    done = quantchat(tmp_path, "models", "rm", "--yes", str(outside), "--models-dir", str(models))
    assert done.returncode == 4
    assert "lies outside the folders" in done.stderr
    whole = quantchat(tmp_path, "models", "rm", "--yes", str(outside), "--models-dir", str(outside))
    assert whole.returncode == 4
    assert "searched for models" in whole.stderr
    several = quantchat(tmp_path, "models", "rm", "--yes", "a", "--models-dir", str(models))
    assert several.returncode == 4
    assert "Several models fit a" in several.stderr
    (models / "link").symlink_to(models / "beta-instruct")
    link = quantchat(tmp_path, "models", "rm", "--yes", str(models / "link"), "--models-dir", str(models))
    assert link.returncode == 4
    assert "it is a link to" in link.stderr
    (models / "link").unlink()
    assert (outside / "model.safetensors").exists()
    assert len(list(models.iterdir())) == 3


def test_of_a_file_and_a_link_to_it_the_file_goes(tmp_path: Path) -> None:
    folder = tmp_path / "models"
    folder.mkdir()
    (folder / "real.gguf").write_bytes(b"GGUF" * 10)
    for name, shown in (("a-link.gguf", "a-link.gguf"), ("z-link.gguf", "real.gguf")):
        (folder / name).symlink_to("real.gguf")
        link = quantchat(tmp_path, "models", "rm", "--yes", str(folder / name), "--models-dir", str(folder))
        assert link.returncode == 4
        assert "it is a link to" in link.stderr
        assert quantchat(tmp_path, "models", "--models-dir", str(folder)).stdout.rstrip().endswith(shown)
        (folder / name).unlink()
    (folder / "a-link.gguf").symlink_to("real.gguf")
    real = quantchat(tmp_path, "models", "rm", "--yes", str(folder / "real.gguf"), "--models-dir", str(folder))
    assert real.returncode == 0, real.stderr
    assert f"What is at {folder / 'a-link.gguf'} are links to it" in real.stdout
    assert not (folder / "real.gguf").exists()


def test_the_help_names_all_of_it(tmp_path: Path) -> None:
    done = quantchat(tmp_path, "models", "--help")
    assert done.returncode == 0
    assert "[WORD]..." in done.stdout
    assert "show" in done.stdout
    assert "rm" in done.stdout


INTERRUPTED = """
import os, signal, sys
# A test run in the background of a shell has handed down that it ignores this one.
signal.signal(signal.SIGINT, signal.default_int_handler)
def hook(event, arguments):
    if event == "os.listdir" and os.fsdecode(arguments[0] or b"") == sys.argv[1]:
        os.kill(os.getpid(), signal.SIGINT)
from quantchat.cli import main
sys.addaudithook(hook)
main(["models", "--models-dir", sys.argv[1]])
"""


def test_an_interrupted_search_ends_as_interrupted_programs_do(tmp_path: Path, models: Path) -> None:
    command = [sys.executable, "-c", INTERRUPTED, str(models)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment(tmp_path), stdin=subprocess.DEVNULL)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "quantchat: Stopped.\n")
