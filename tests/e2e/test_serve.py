"""The real model behind a server that is not ours: from `quantchat serve` to an answer, and nothing left behind."""

from __future__ import annotations

from pathlib import Path

import pytest

from e2e.chat import HANG_SECONDS, LOAD_SECONDS
from e2e.conftest import answers_of, stored_sessions
from processes import children, is_running
from terminal import Terminal, program_env, quantchat_command

pytestmark = pytest.mark.e2e


def test_a_quantized_model_answers_through_transformers_serve(home: Path, model: Path, tmp_path: Path) -> None:
    env = program_env(home, HF_HUB_CACHE=str(tmp_path / "hub"))
    terminal = Terminal(quantchat_command("serve", str(model), "--backend", "transformers"), env=env)
    try:
        terminal.wait_for("transformers serve")
        terminal.wait_for(lambda text: "127.0.0.1:" in text.splitlines()[-1], LOAD_SECONDS)
        guard = children("serving.guard", terminal.pid)[0]
        pids = [guard.pid, *(child.pid for child in guard.children(recursive=True))]
        assert len(pids) > 1
        terminal.type("What is the capital of France?\r")
        terminal.wait_for(lambda text: "Paris" in text and "Answering" not in text, HANG_SECONDS)
        terminal.press("ctrl+q")
        assert terminal.wait_exit(25.0) == 0
    finally:
        terminal.close()
    assert not any(map(is_running, pids))
    (session,) = stored_sessions(home)
    (answer,) = answers_of(session)
    assert "Paris" in str(answer)
