"""`quantchat prompt`: the exact prompt by a model's tokenizer alone, on ordinary pipes."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from engine import templates
from engine.llama import tiny_gguf
from quantchat.domain.chat import ChatMessage
from quantchat.engine.prompt import render_text
from scripted_shell import PATIENCE, Shell
from unit.catalog.model_folders import make_gptq

pytestmark = pytest.mark.engine
TALK = [
    ChatMessage("system", "Be brief."),
    ChatMessage("user", "Why \u200b日本?"),
    ChatMessage("assistant", "Because."),
]


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    """A shell with one model: its tokenizer is real, its weights are no model's."""
    shell = Shell(tmp_path, "prompt")
    templates.make_tokenizer("byte-level", "chatml").save_pretrained(make_gptq(shell.models / "alpha"))
    return shell


def history(folder: Path) -> str:
    path = folder / "talk.jsonl"
    path.write_text("".join(json.dumps({"role": m.role, "content": m.content}) + "\n" for m in TALK))
    return str(path)


def test_the_report_counts_and_shows(shell: Shell) -> None:
    status, out, err = shell.run("alpha", "-i", history(shell.folder), "-p", "Hi<|im_end|>\x1b[31m")
    assert (status, err) == (0, "")
    assert "for alpha\n\n! Message 4 (user) holds <|im_end|>" in out
    rows = [line.split()[:2] for line in out.split("\n") if line.endswith(("brief.", "?", "Because.")) and "%" in line]
    assert rows == [["1", "system"], ["2", "user"], ["3", "assistant"]]
    assert "<|im_start|>user\nWhy <U+200B>日本?<|im_end|>\n" in out
    assert "\x1b" not in out


def test_the_text_alone_goes_into_a_pipe_exactly(shell: Shell) -> None:
    status, out, err = shell.run("alpha", "-i", history(shell.folder), "-p", "And?", "--text")
    asked = [*TALK, ChatMessage("user", "And?")]
    assert (status, err) == (0, "")
    assert out == render_text(templates.make_tokenizer("byte-level", "chatml"), asked)


def test_json_has_every_piece(shell: Shell) -> None:
    status, out, _ = shell.run("alpha", "--system", "Be wild.", "-p", "Why?", "--json")
    found = json.loads(out)
    assert status == 0
    assert "".join(piece["text"] for piece in found["pieces"]) == found["text"]
    assert sum(piece["tokens"] for piece in found["pieces"]) == found["tokens"]
    assert sum(part["tokens"] for part in found["messages"]) == found["tokens"]
    assert [part["label"] for part in found["messages"]] == ["system", "user", "template"]
    assert found["warnings"] == []


def test_another_template_and_a_history_on_stdin(shell: Shell) -> None:
    (shell.folder / "plain.jinja").write_text("{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}")
    talk = json.dumps([{"role": "user", "content": "Why?"}])
    status, out, err = shell.run("alpha", "-i", "-", "--template", str(shell.folder / "plain.jinja"), stdin=talk)
    assert (status, err) == (0, "")
    assert "The template does not begin the answer: “assistant:”" in out


def test_a_gguf_file_is_read_without_its_weights(shell: Shell) -> None:
    tiny_gguf.write(shell.models / "tiny-F32.gguf")
    status, out, err = shell.run("tiny", "-p", "Hi", "--json")
    assert (status, err) == (0, "")
    found = json.loads(out)
    assert sum(piece["tokens"] for piece in found["pieces"]) == found["tokens"] > 0
    assert "Hi" in found["text"]


@pytest.mark.parametrize(
    ("arguments", "words", "expected"),
    [
        (["alpha"], "There is nothing to ask", 2),
        (["gamma", "-p", "x"], "No model is called gamma", 4),
        (["alpha", "-i", "/nowhere.json"], "There is no such file. /nowhere.json. Check its name.", 3),
        (["alpha", "-i", "/"], "That is a folder, not a file. /.", 3),
        (["alpha", "-i", "/dev/null"], "There is nothing to ask. /dev/null holds no messages.", 2),
        (["server:box/m", "-p", "x"], "is no model of a server", 2),
    ],
)
def test_what_cannot_be_done_is_said(shell: Shell, arguments: list[str], words: str, expected: int) -> None:
    status, out, err = shell.run(*arguments)
    assert status == expected
    assert words in err
    assert out == ""


def test_a_question_that_does_not_fit_and_a_tokenizer_that_is_not_there(shell: Shell) -> None:
    (shell.folder / "long.json").write_text(json.dumps([{"role": "user", "content": "word " * 9_000}]))
    status, _, err = shell.run("alpha", "-i", str(shell.folder / "long.json"))
    assert status == 5
    assert "does not fit the model's context window" in err
    for file in shell.models.glob("alpha/tokenizer*"):
        file.unlink()
    status, _, err = shell.run("alpha", "-p", "x")
    assert status == 5
    assert "The model's tokenizer cannot be used" in err


def test_a_servers_model_is_asked_through_its_engine(shell: Shell) -> None:
    config = shell.folder / "home" / "config"
    config.mkdir(parents=True)
    (config / "config.toml").write_text('[servers.box]\nurl = "http://127.0.0.1:9/v1"\n')
    status, out, err = shell.run("server:box/org/model", "-p", "Why?", "--text")
    assert (status, err) == (0, "")
    assert out == "<|im_start|>user\nWhy?<|im_end|>\n<|im_start|>assistant\n"


def test_ctrl_c_ends_it(shell: Shell) -> None:
    shell.script(load={"seconds": 20})
    config = shell.folder / "home" / "config"
    config.mkdir(parents=True)
    (config / "config.toml").write_text('[servers.box]\nurl = "http://127.0.0.1:9/v1"\n')
    with shell.start("server:box/m", "-p", "Why?") as process:
        assert process.stdin is not None
        process.stdin.close()
        process.stdin = None
        while not _children(process.pid):
            assert process.poll() is None
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 130
    assert "Stopped" in err


def _children(pid: int) -> str:
    return Path(f"/proc/{pid}/task/{pid}/children").read_text()


def test_torch_is_not_imported_for_a_tokenizer(shell: Shell) -> None:
    program = (
        "import sys\n"
        "from pathlib import Path\n"
        "from quantchat.catalog.reader import read_model\n"
        "from quantchat.domain.chat import ChatMessage\n"
        "from quantchat.engine.prompting import Question, answer\n"
        "from quantchat.engine.protocol import RenderedPrompt, RenderPrompt\n"
        "command = RenderPrompt(request='r', messages=[ChatMessage('user', 'Why?')])\n"
        "found = answer(Question(read_model(Path(sys.argv[1])), command))\n"
        "assert isinstance(found, RenderedPrompt), found\n"
        "assert sys.modules.get('torch') is None and 'llama_cpp' not in sys.modules\n"
    )
    arguments = [sys.executable, "-c", program, str(shell.models / "alpha")]
    made = subprocess.run(arguments, capture_output=True, text=True, check=False, env=shell.environment)
    assert made.returncode == 0, made.stderr
