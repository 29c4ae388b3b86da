"""Answers of GGUF files: the text of llama-cpp-python's own loop, KV reuse, turns side by side, every setting."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from engine.llama import tiny_gguf
from engine.llama.letters import Answer
from engine.rig import GREEDY, Rig, asking
from quantchat.catalog.reader import read_model
from quantchat.domain.chat import ChatMessage
from quantchat.domain.generation import SamplingSettings
from quantchat.engine import protocol as p
from quantchat.services.snippets import llama_snippet

Alone = Callable[..., Answer]
TEXT = "the other brother gathers feathers there"
SAMPLED = SamplingSettings(temperature=1, top_k=0, top_p=1, max_new_tokens=24, seed=11)
LONG = SamplingSettings(temperature=0, max_new_tokens=120)


def following(*turns: tuple[str, str], question: str = "And then?") -> list[ChatMessage]:
    said = [
        message for asked, answer in turns for message in (ChatMessage("user", asked), ChatMessage("assistant", answer))
    ]
    return [*said, ChatMessage("user", question)]


@pytest.fixture(scope="module")
def reference(tiny: Path):
    """Greedy answers by llama-cpp-python's own loop."""
    from llama_cpp import Llama

    model = Llama(str(tiny), n_ctx=tiny_gguf.WINDOW, verbose=False)

    def answer(messages: list[ChatMessage], tokens: int = 24) -> list[int]:
        text = "<s>" + "".join(f"<|{m.role}|>{m.content}</s>" for m in messages) + "<|assistant|>"
        ids = model.tokenize(text.encode(), add_bos=False, special=True)
        found = []
        for token in model.generate(ids, temp=0.0, repeat_penalty=1.0):
            found.append(token)
            if token == model.token_eos() or len(found) == tokens:
                break
        return found

    yield lambda messages, tokens=24: model.detokenize(answer(messages, tokens)).decode("utf-8", "replace")
    model.close()


def test_an_answer_is_what_llama_cpp_itself_says(loaded: Rig, alone: Alone, reference) -> None:
    assert alone(asking(TEXT)) == reference(asking(TEXT))
    _, end = loaded.answer(asking(TEXT))
    assert (end.reason, end.statistics.new_tokens) == ("length", 24)
    assert end.statistics.prompt_tokens > len(TEXT) / 2
    assert end.statistics.prefill_seconds > 0


def test_the_next_turn_of_a_session_computes_only_what_is_new(loaded: Rig, alone: Alone, reference) -> None:
    first, end = loaded.answer(asking(TEXT), session="s")
    messages = following((TEXT, first))
    again, second = loaded.answer(messages, session="s")
    assert (expected := alone(messages)) == again
    assert expected == reference(messages)
    assert second.statistics.reused_tokens >= end.statistics.prompt_tokens
    assert any(isinstance(event, p.Warm) and event.sessions for event in loaded.events)


def test_an_edited_question_reuses_what_both_have_in_common(loaded: Rig, alone: Alone) -> None:
    loaded.answer(asking(TEXT + " one"), session="s")
    text, end = loaded.answer(asking(TEXT + " two"), session="s")
    assert 0 < end.statistics.reused_tokens < end.statistics.prompt_tokens
    assert alone(asking(TEXT + " two")) == text


def test_the_same_question_again_computes_one_token_of_it(loaded: Rig, alone: Alone) -> None:
    first = alone(asking(TEXT), session="s")
    again, end = loaded.answer(asking(TEXT), session="s")
    assert first == again
    assert end.statistics.reused_tokens == end.statistics.prompt_tokens - 1


def test_turns_side_by_side_say_what_they_say_alone(loaded: Rig, alone: Alone) -> None:
    questions = [f"{TEXT} {number}" * (number + 1) for number in range(4)]
    expected = [alone(asking(question)) for question in questions]
    turns = [loaded.start(asking(question), session=f"s{place}") for place, question in enumerate(questions)]
    loaded.settle()
    assert expected == [loaded.text(turn) for turn in turns]


def test_a_stopped_answer_is_the_beginning_of_the_whole_one(loaded: Rig, alone: Alone) -> None:
    whole = alone(asking(TEXT), LONG)
    turn = loaded.start(asking(TEXT), LONG, session="s", apart=True)
    while len(loaded.text(turn)) < 3:
        loaded.wait(p.Delta)
    loaded.worker.submit(p.Stop(turn=turn))
    end = loaded.wait(p.Finished, p.Failed)
    assert end.reason in ("stopped", "length")
    said = loaded.text(turn)
    assert Answer(whole.text[: len(said)], whole.leads) == said


def test_a_cut_answer_goes_on_as_if_it_had_not_been_cut(loaded: Rig, alone: Alone) -> None:
    whole = alone(asking(TEXT), LONG)
    begun, end = loaded.answer(asking(TEXT), GREEDY, session="s")
    assert end.reason == "length"
    rest = msgspec.structs.replace(LONG, max_new_tokens=LONG.max_new_tokens - GREEDY.max_new_tokens)
    more, resumed = loaded.answer(asking(TEXT), rest, session="s", resume=p.Partial(text=begun))
    assert whole == begun + more
    assert resumed.statistics.reused_tokens >= end.statistics.prompt_tokens


def test_one_seed_gives_one_text_and_another_gives_another(loaded: Rig) -> None:
    first, again, other = (loaded.answer(sampling=replace_seed(seed))[0] for seed in (1, 1, 2))
    assert first == again != other
    _, end = loaded.answer(sampling=replace_seed(None))
    assert end.statistics.seed is not None


def replace_seed(seed: int | None) -> SamplingSettings:
    return msgspec.structs.replace(SAMPLED, seed=seed)


def test_a_banned_text_is_not_said(loaded: Rig) -> None:
    free, _ = loaded.answer(sampling=GREEDY)
    common = max(set(free), key=free.count)
    bound, end = loaded.answer(sampling=msgspec.structs.replace(GREEDY, logit_bias={common: -100.0}))
    assert isinstance(end, p.Finished)
    assert common not in bound


def test_a_stop_string_ends_the_answer_and_is_not_shown(loaded: Rig) -> None:
    whole, _ = loaded.answer(sampling=LONG)
    stop = whole[5:8]
    text, end = loaded.answer(sampling=msgspec.structs.replace(LONG, stop=(stop,)))
    assert text == whole[: whole.index(stop)]
    assert end.reason == "stop"


def test_the_models_end_token_ends_the_answer_and_is_not_shown(loaded: Rig) -> None:
    wish = msgspec.structs.replace(GREEDY, logit_bias={"</s>": 100.0})
    text, end = loaded.answer(sampling=wish)
    assert (text, end.reason, end.statistics.new_tokens) == ("", "stop", 1)


def test_thinking_goes_to_a_channel_of_its_own(loaded: Rig) -> None:
    template = tiny_gguf.TEMPLATE.replace("<|assistant|>{% endif", "<|assistant|><think>{% endif")
    wish = msgspec.structs.replace(LONG, logit_bias={"</think>": 4.0})
    turn = loaded.start(asking(TEXT), wish, template=template, session="s")
    end = loaded.wait(p.Finished, p.Failed)
    assert isinstance(end, p.Finished)
    channels = [event.channel for event in loaded.events if isinstance(event, p.Delta) and event.turn == turn]
    assert channels[0] == "thinking"


def test_another_template_is_asked_with_and_its_turns_end(loaded: Rig) -> None:
    template = "{% for m in messages %}[{{ m['role'] }}] {{ m['content'] }}\n[end]\n{% endfor %}[assistant]"
    loaded.worker.submit(p.RenderPrompt(request="r", messages=asking("Hi"), template=template))
    assert loaded.wait(p.RenderedPrompt).text == "[user] Hi\n[end]\n[assistant]"
    assert isinstance(loaded.answer(template=template)[1], p.Finished)


def test_a_file_without_a_template_takes_the_named_fallback(llama: Rig, tmp_path: Path) -> None:
    report = llama.load(tiny_gguf.write(tmp_path / "bare.gguf", template=None)).report
    assert report.template == "chatml"
    llama.worker.submit(p.RenderPrompt(request="r", messages=asking("Hi")))
    assert llama.wait(p.RenderedPrompt).text == "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"


def test_a_rendered_prompt_comes_in_pieces(loaded: Rig) -> None:
    loaded.worker.submit(p.RenderPrompt(request="r", messages=asking("Hi <s> there")))
    rendered = loaded.wait(p.RenderedPrompt, p.RequestFailed)
    assert "".join(piece.text for piece in rendered.pieces) == rendered.text
    assert sum(piece.tokens for piece in rendered.pieces) == rendered.tokens
    assert [piece.text for piece in rendered.pieces if piece.special].count("<s>") == 2
    assert any("<s>" in warning.cause for warning in rendered.warnings)


def test_tokens_are_counted_as_they_would_be_sent(loaded: Rig) -> None:
    loaded.worker.submit(p.CountTokens(request="c", messages=asking("Hi"), reserve=10))
    count = loaded.wait(p.TokenCount)
    assert (count.tokens, count.window, count.reserve) == (len("Hi") + 4, tiny_gguf.WINDOW, 10)


def test_a_long_conversation_loses_its_oldest_turns(loaded: Rig) -> None:
    turns = [("x" * 60, "y" * 60) for _ in range(8)]
    _, end = loaded.answer(following(*turns), session="s")
    assert isinstance(end, p.Finished)
    prefill = next(event for event in loaded.events if isinstance(event, p.Prefill))
    assert prefill.dropped > 0
    assert prefill.total < tiny_gguf.WINDOW


def test_a_question_that_is_too_long_is_refused_by_name(loaded: Rig) -> None:
    _, end = loaded.answer(asking("x" * 2 * tiny_gguf.WINDOW))
    assert isinstance(end, p.Failed)
    assert end.error.code == "context-full"
    assert isinstance(loaded.answer()[1], p.Finished)


def test_an_answer_that_fills_the_window_says_so(loaded: Rig) -> None:
    _, end = loaded.answer(asking("x" * (tiny_gguf.WINDOW - 20)), LONG)
    assert end.reason == "context"


def test_settings_that_forbid_everything_fail_one_turn_alone(loaded: Rig) -> None:
    tokens, _ = tiny_gguf.vocabulary()
    forbidden = dict.fromkeys(tokens, -100.0)
    other = loaded.start(asking(TEXT), LONG)
    turn = loaded.start(sampling=msgspec.structs.replace(SAMPLED, no_repeat_ngram=1, logit_bias=forbidden))
    loaded.settle()
    assert len(loaded.ends(turn)) == len(loaded.ends(other)) == 1
    assert isinstance(loaded.ends(other)[0], p.Finished)


def test_jobs_are_refused_by_name(loaded: Rig) -> None:
    loaded.worker.submit(p.Evaluate(job="e"))
    failed = loaded.wait(p.JobFailed)
    assert failed.error.code == "backend"
    assert "GGUF" in failed.error.title


def test_the_memory_can_be_measured(loaded: Rig, tiny: Path) -> None:
    loaded.worker.submit(p.MeasureBandwidth(job="m"))
    figures = loaded.wait(p.JobFinished, p.JobFailed).figures
    assert figures["copy_bytes_per_second"] > 1e8
    assert 0 < figures["token_bytes"] < read_model(tiny).weight_bytes


def test_the_engine_imports_neither_torch_nor_transformers() -> None:
    code = (
        "import sys\n"
        "from quantchat.engine.backends import open_backend\n"
        "opened = open_backend('llama', print)\n"
        "assert opened.versions['llama-cpp-python'], opened\n"
        "print([name for name in ('torch', 'transformers', 'gptqmodel', 'textual') if name in sys.modules])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=dict(os.environ)
    )
    assert done.stdout.strip() == "[]"


def test_the_script_that_the_info_panel_gives_runs(tiny: Path) -> None:
    text = llama_snippet(read_model(tiny), "cpu").text.replace("max_tokens=256", "max_tokens=3")
    done = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, check=True)
    assert len(done.stdout.strip()) == 3
