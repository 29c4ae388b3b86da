"""Turns with a server that behaves: what is sent, what is told, how they stop."""

from __future__ import annotations

import subprocess
import sys

import msgspec
import pytest

from bad_server import DONE, Act, BadServer, chunk, event, usage
from engine.rig import ENDS, asking
from engine.servers.rig import PLAIN, ServerRig, until
from quantchat.domain.chat import ChatMessage
from quantchat.engine import protocol as p


def test_an_answer_is_streamed_with_its_figures(box: ServerRig, server: BadServer) -> None:
    text, end = box.answer()
    assert text == "Hello there, my friend."
    assert end.reason == "stop"
    assert (end.statistics.prompt_tokens, end.statistics.new_tokens) == (12, 5)
    assert end.statistics.prefill_seconds > 0
    (request,) = server.asked()
    assert request.body["messages"] == [{"role": "user", "content": "What is counted tomorrow?"}]
    assert request.body["stream"] is True
    assert "authorization" not in request.headers
    assert not [name for name in request.headers if name.startswith("openai-")]


def test_the_load_tells_what_was_found_and_asked_one_token(asker: ServerRig, server: BadServer) -> None:
    loaded = asker.use(server.url)
    report = loaded.report
    assert (report.kernel, report.architecture, report.context_window) == ("server", "vLLM", 4096)
    assert report.device == server.url.split("/")[2]
    assert report.warnings == ()
    (request,) = server.asked()
    assert request.body["max_tokens"] == 1
    assert not asker.said("")


def test_tokens_from_a_prefix_cache_are_told(box: ServerRig, server: BadServer) -> None:
    server.will(
        Act(pieces=[chunk("a"), chunk("", "stop"), usage(100, 1, prompt_tokens_details={"cached_tokens": 96}), DONE])
    )
    assert box.answer()[1].statistics.reused_tokens == 96


def test_no_counts_are_no_failure_and_the_load_says_so(asker: ServerRig, server: BadServer) -> None:
    server.answers = lambda _body: [chunk("one"), chunk(" two"), chunk(None, "stop"), DONE]
    loaded = asker.use(server.url)
    assert "does not tell how many tokens" in loaded.report.warnings[0]
    text, end = asker.answer()
    assert (text, end.statistics.new_tokens, end.statistics.prompt_tokens) == ("one two", 2, 0)


@pytest.mark.parametrize("field", ["reasoning_content", "reasoning"])
def test_thinking_in_a_field_of_its_own_is_thinking(box: ServerRig, server: BadServer, field: str) -> None:
    thought = [chunk(**{field: "Let me"}), chunk(**{field: " see <b>"})]
    server.will(Act(pieces=[*thought, chunk("\n\nFour."), chunk(None, "stop"), DONE]))
    name = box.start()
    assert box.wait(*ENDS).reason == "stop"
    assert (box.thinking(name), box.said(name)) == ("Let me see <b>", "Four.")


def test_thinking_between_tags_is_thinking(box: ServerRig, server: BadServer) -> None:
    words = ["<th", "ink>\nHm", "m.\n</thi", "nk>\n\nFour."]
    server.will(Act(pieces=[*map(chunk, words), chunk(None, "stop"), DONE]))
    name = box.start()
    box.wait(*ENDS)
    assert (box.thinking(name), box.said(name)) == ("Hmm.", "Four.")


def test_a_tag_that_the_template_opens_is_found_out_at_the_load(asker: ServerRig, server: BadServer) -> None:
    server.pages["/tokenize"] = lambda _body: {"count": 3, "tokens": [1, 2, 3], "token_strs": ["<s>", "Hi", "<think>"]}
    server.pages["/detokenize"] = lambda _body: {"prompt": "<s>Hi<think>\n"}
    assert isinstance(asker.use(server.url), p.Loaded)
    server.will(Act(pieces=[chunk("Hm"), chunk("m.</think>Four."), chunk(None, "stop"), DONE]))
    name = asker.start()
    asker.wait(*ENDS)
    assert (asker.thinking(name), asker.said(name)) == ("Hmm.", "Four.")


def test_stop_texts_end_the_answer_and_close_the_connection(box: ServerRig, server: BadServer) -> None:
    act = server.will(Act(pieces=[chunk("one "), chunk("two"), chunk(" th"), chunk("ree")], stall=True))
    text, end = box.answer(sampling=msgspec.structs.replace(PLAIN, stop=("two three",)))
    assert (text, end.reason) == ("one ", "stop")
    request = server.asked()[-1]
    assert request.body["stop"] == ["two three"]
    assert request.gone.wait(20)
    act.released.set()


def test_stop_closes_the_connection_and_the_servers_work_ends(box: ServerRig, server: BadServer) -> None:
    server.will(Act(pieces=[chunk("Hello")], stall=True))
    name = box.start()
    box.wait(p.Delta)
    assert server.running == 1
    box.worker.submit(p.Stop(turn=name))
    end = box.wait(*ENDS)
    assert (end.reason, box.said(name)) == ("stopped", "Hello")
    assert server.asked()[-1].gone.wait(20)
    until(lambda: server.running == 0)
    assert box.answer()[1].reason == "stop", "a stop must not survive into the next turn"


def test_stop_before_anything_came_ends_the_servers_work(box: ServerRig, server: BadServer) -> None:
    act = server.will(Act(silent=True))
    name = box.start()
    assert act.reached.wait(20)
    box.worker.submit(p.Stop(turn=name))
    assert box.wait(*ENDS).reason == "stopped"
    assert server.asked()[-1].gone.wait(20)


def test_several_turns_run_at_once(box: ServerRig, server: BadServer) -> None:
    slow = server.will(Act(pieces=[chunk("slow")], stall=True))
    first = box.start(session="a")
    box.wait(p.Delta)
    second = box.start(session="b")
    assert box.wait(*ENDS).turn == second
    slow.released.set()
    assert box.wait(*ENDS).turn == first


def test_a_server_that_breaks_answers_off_for_others_gets_them_one_by_one(asker: ServerRig, server: BadServer) -> None:
    server.owner = "me"
    server.pages["/openapi.json"] = lambda _body: {"info": {"title": "🦙 llama.cpp Python API"}}
    assert isinstance(asker.use(server.url), p.Loaded)
    slow = server.will(Act(pieces=[chunk("slow")], stall=True))
    asker.start(session="a")
    asker.wait(p.Delta)
    second = asker.start(session="b")
    third = asker.start(session="c")
    asker.worker.submit(p.Stop(turn=third))
    assert (asker.wait(*ENDS).turn, server.running) == (third, 1)
    slow.released.set()
    # Its stream had no end of its own.
    assert asker.wait(*ENDS).error.code == "server-cut"
    assert asker.wait(*ENDS).turn == second


def test_an_answer_that_is_not_streamed_is_taken_whole(box: ServerRig, server: BadServer) -> None:
    message = {"choices": [{"message": {"role": "assistant", "content": "All."}, "finish_reason": "length"}]}
    body = msgspec.json.encode(message | {"usage": {"prompt_tokens": 3, "completion_tokens": 1}})
    server.will(Act(body=body, headers={"Content-Type": "application/json"}))
    text, end = box.answer()
    assert (text, end.reason, end.statistics.prompt_tokens) == ("All.", "length", 3)


def test_an_answer_goes_on_where_it_was_cut(box: ServerRig, server: BadServer) -> None:
    server.will(Act(pieces=[*map(chunk, [" is", " Paris"]), chunk(None, "stop"), DONE]))
    text, _ = box.answer(resume=p.Partial(text="The capital"))
    assert text == " is Paris"
    body = server.asked()[-1].body
    assert body["messages"][-1] == {"role": "assistant", "content": "The capital"}
    assert (body["continue_final_message"], body["add_generation_prompt"]) == (True, False)


def test_stop_texts_count_across_the_place_where_an_answer_was_cut(box: ServerRig, server: BadServer) -> None:
    server.will(Act(pieces=[chunk("D of it"), chunk(None, "stop"), DONE]))
    text, end = box.answer(
        resume=p.Partial(text="This is the EN"), sampling=msgspec.structs.replace(PLAIN, stop=("END",))
    )
    assert (text, end.reason) == ("", "stop")


def test_what_a_server_cannot_do_is_refused_by_name(box: ServerRig, server: BadServer) -> None:
    _, end = box.answer(template="{{ messages }}")
    assert end.error.code == "template"
    box.worker.submit(p.Evaluate(job="j"))
    assert box.wait(p.JobFailed, p.JobFinished).error.code == "server-cannot"
    box.worker.submit(p.CountTokens(request="c", messages=asking()))
    assert box.wait(p.TokenCount, p.RequestFailed).error.code == "server-cannot"
    box.worker.submit(p.RenderPrompt(request="r", messages=asking()))
    assert box.wait(p.RenderedPrompt, p.RequestFailed).error.code == "server-cannot"
    assert server.asked() == []


def test_a_server_that_cannot_continue_is_not_asked_to(asker: ServerRig, server: BadServer) -> None:
    server.owner = "org"
    server.pages["/openapi.json"] = lambda _body: {"paths": {"/load_model": {}, "/v1/chat/completions": {}}}
    asker.use(server.url)
    count = len(server.asked())
    end = asker.answer(resume=p.Partial(text="The capital"))[1]
    assert (end.error.code, len(server.asked())) == ("server-cannot", count)


def test_progress_in_the_prompt_is_told_as_llama_cpp_tells_it(box: ServerRig, server: BadServer) -> None:
    reading = {"total": 100, "cache": 40, "processed": 60}
    told = event({"choices": [{"delta": {"role": "assistant"}}], "prompt_progress": reading})
    last = {
        "choices": [{"delta": {}, "finish_reason": "stop"}],
        "timings": {"cache_n": 40, "prompt_n": 60, "predicted_n": 7},
    }
    server.will(Act(pieces=[told, chunk("Hi"), event(last), DONE]))
    name = box.start()
    statistics = box.wait(*ENDS).statistics
    told_to_screen = [(e.done, e.total, e.reused) for e in box.told(p.Prefill) if e.turn == name]
    assert told_to_screen == [(0, 0, 0), (60, 100, 40)]
    assert (statistics.prompt_tokens, statistics.new_tokens, statistics.reused_tokens) == (100, 7, 40)


def test_loading_another_model_stops_the_turn_first(box: ServerRig, server: BadServer) -> None:
    server.will(Act(pieces=[chunk("Hello")], stall=True))
    box.start()
    box.wait(p.Delta)
    assert isinstance(box.use(server.url), p.Loaded)
    assert [end.reason for end in box.told(p.Finished)] == ["stopped"]


def test_unloading_leaves_nothing_to_ask(box: ServerRig, server: BadServer) -> None:
    box.worker.submit(p.Unload(request="u"))
    box.wait(p.Unloaded)
    assert box.answer()[1].error.code == "no-model"


def test_the_engine_of_servers_imports_no_model_library() -> None:
    code = """
import sys
from quantchat.engine.backends import open_backend
open_backend("server", print)
print(*sorted({name.partition('.')[0] for name in sys.modules}))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    heavy = {"torch", "transformers", "gptqmodel", "llama_cpp", "numpy", "textual"}
    assert "openai" in done.stdout.split()
    assert not set(done.stdout.split()) & heavy


def test_roles_that_a_template_refuses_are_written_otherwise(box: ServerRig, server: BadServer) -> None:
    refusal = {"error": {"message": "Conversation roles must alternate user/assistant/user/assistant/..."}}
    server.will(Act(status=400, body=msgspec.json.encode(refusal)))
    text, _ = box.answer([ChatMessage("user", "One."), ChatMessage("user", "Two.")])
    assert text
    assert server.asked()[-1].body["messages"] == [{"role": "user", "content": "One.\n\nTwo."}]
    box.answer([ChatMessage("user", "One."), ChatMessage("user", "Two.")])
    assert len(server.asked()) == 3, "the form is known from then on"
