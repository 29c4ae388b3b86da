"""The server of the loaded model as the status bar sees it: figures, failures, its return."""

from __future__ import annotations

import pytest

from bad_server import Act, BadServer, chunk
from engine.servers.rig import ServerRig, until
from quantchat.engine import protocol as p
from quantchat.engine.backends.server import health
from quantchat.engine.backends.server.metrics import Figures, read_metrics

NEW = """\
# HELP vllm:num_requests_running Number of requests in model execution batches.
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine="0",model_name="tiny"} 2.0
vllm:num_requests_running{engine="1",model_name="tiny"} 1.0
vllm:num_requests_running{engine="0",model_name="other"} 9.0
vllm:num_requests_waiting{engine="0",model_name="tiny"} 4.0
vllm:kv_cache_usage_perc{engine="0",model_name="tiny"} 0.25
vllm:kv_cache_usage_perc{engine="1",model_name="tiny"} 0.75
vllm:prefix_cache_queries_total{engine="0",model_name="tiny"} 200.0
vllm:prefix_cache_hits_total{engine="0",model_name="tiny"} 150.0
vllm:e2e_request_latency_seconds_bucket{le="+Inf",model_name="tiny"} 7.0
"""
OLD = """\
vllm:num_requests_running{model_name="org/x"} 1.0
vllm:num_requests_waiting{model_name="org/x"} 0.0
vllm:gpu_cache_usage_perc{model_name="org/x"} 0.5
vllm:gpu_prefix_cache_hit_rate{model_name="org/x"} -1.0
"""
LLAMA = "llamacpp:requests_processing 1\nllamacpp:requests_deferred 2\n"
SGLANG = """\
sglang:num_running_reqs{model_name="x"} 1
sglang:num_queue_reqs{model_name="x"} 0
sglang:token_usage{} 0.1
sglang:cache_hit_rate{} 0.3
"""


@pytest.mark.parametrize(
    ("page", "figures"),
    [
        (NEW, Figures(running=3, waiting=4, cache_used=0.5, hits=150.0, queries=200.0)),
        (OLD, Figures(running=1, waiting=0, cache_used=0.5)),
        (LLAMA, Figures(running=1, waiting=2)),
        (SGLANG, Figures(running=1, waiting=0, cache_used=0.1, hit_rate=0.3)),
        ("", Figures()),
        ("<html>no metrics</html>\nvllm:num_requests_running NaN\nvllm:num_requests_waiting +Inf\nx{", Figures()),
    ],
)
def test_metrics_are_read_by_their_old_and_new_names(page: str, figures: Figures) -> None:
    assert read_metrics(page, "tiny") == figures


@pytest.fixture
def watched(asker: ServerRig, server: BadServer, monkeypatch: pytest.MonkeyPatch):
    """The worker with a model of a server that publishes figures, looked at all the time."""
    server.pages["/metrics"] = NEW.encode()
    monkeypatch.setattr(health, "POLL_SECONDS", 0.02)
    monkeypatch.setattr(health, "SPARING_SECONDS", 0.02)
    # What was loaded before may still be looked at, on a server that is gone.
    unload(asker)
    asker.events.clear()
    assert isinstance(asker.use(server.url), p.Loaded)
    yield asker
    unload(asker)


def unload(asker: ServerRig) -> None:
    request = asker.name()
    asker.worker.submit(p.Unload(request=request))
    asker.wait_for(p.Unloaded, lambda event: event.request == request)


def test_figures_are_told_once_and_when_they_change(watched: ServerRig, server: BadServer) -> None:
    first = watched.wait(p.ServerState)
    assert (first.healthy, first.running, first.waiting, first.cache_used) == (True, 3, 4, 0.5)
    assert first.prefix_hits == 0.75
    looks = len(server.asked("/metrics"))
    until_looked(server, looks + 3)
    server.pages["/metrics"] = NEW.replace(" 4.0", " 0.0").replace("200.0", "300.0").replace("150.0", "160.0").encode()
    second = watched.wait(p.ServerState)
    assert (second.waiting, second.prefix_hits) == (0, 0.1), "hits are those since the last look"
    assert len(watched.told(p.ServerState)) == 2


def until_looked(server: BadServer, times: int) -> None:
    until(lambda: len(server.asked("/metrics")) >= times)


def test_a_server_that_goes_away_is_told_and_comes_back_by_itself(watched: ServerRig, server: BadServer) -> None:
    watched.wait_for(p.ServerState, lambda state: state.healthy)
    server.sleep()
    gone = watched.wait_for(p.ServerState, lambda state: not state.healthy)
    assert "nothing listens there" in gone.detail
    assert "Looking again" in gone.detail
    server.wake()
    back = watched.wait_for(p.ServerState, lambda state: state.healthy)
    assert (back.detail, back.running) == ("", 3)
    assert watched.answer()[1].reason == "stop"


def test_a_server_that_comes_back_without_the_model_is_not_well(watched: ServerRig, server: BadServer) -> None:
    watched.wait_for(p.ServerState, lambda state: state.healthy)
    server.sleep()
    watched.wait_for(p.ServerState, lambda state: not state.healthy)
    server.models = [{"id": "another"}]
    server.wake()
    state = watched.wait_for(p.ServerState, lambda state: "does not have tiny" in state.detail)
    assert not state.healthy


def test_without_a_health_page_the_list_of_models_is_asked(watched: ServerRig, server: BadServer) -> None:
    del server.pages["/health"]
    watched.wait_for(p.ServerState, lambda state: state.healthy)
    asked = len(server.asked("/v1/models"))
    until(lambda: len(server.asked("/v1/models")) > asked + 1)
    server.always["/v1/models"] = Act(status=500, body="broken")
    assert "broken" in watched.wait_for(p.ServerState, lambda state: not state.healthy).detail


def test_figures_come_again_after_a_page_of_them_that_failed(watched: ServerRig, server: BadServer) -> None:
    watched.wait_for(p.ServerState, lambda state: state.running == 3)
    server.will(Act(status=500, body="broken"), path="/metrics")
    watched.wait_for(p.ServerState, lambda state: state.running is None)
    assert watched.wait_for(p.ServerState, lambda state: state.running == 3).healthy


def test_a_server_that_nobody_knows_is_not_asked_for_its_health(watched: ServerRig, server: BadServer) -> None:
    """LiteLLM has each of its models say something there, and they are paid for."""
    server.owner = "somebody"
    assert isinstance(watched.use(server.url), p.Loaded)
    server.requests.clear()
    until(lambda: len(server.asked("/v1/models")) > 2)
    assert not server.asked("/health")


def test_waiting_for_a_busy_server_is_told_there_too(watched: ServerRig, server: BadServer) -> None:
    watched.wait_for(p.ServerState, lambda state: state.healthy)
    server.will(Act(status=429, headers={"Retry-After": "0.2"}))
    watched.start()
    waiting = watched.wait_for(p.ServerState, lambda state: "trying again" in state.detail)
    assert waiting.healthy
    assert watched.wait_for(p.ServerState, lambda state: not state.detail).healthy
    watched.wait(p.Finished)


def test_a_server_that_asks_to_be_left_alone_is(watched: ServerRig, server: BadServer) -> None:
    """It was asked again every three seconds, and that was told."""
    watched.wait_for(p.ServerState, lambda state: state.healthy)
    server.will(Act(status=429, headers={"Retry-After": "60"}), path="/health")
    assert "every 60 seconds" in watched.wait_for(p.ServerState, lambda state: not state.healthy).detail


def test_a_turn_that_waits_for_another_says_so(watched: ServerRig, server: BadServer) -> None:
    server.owner = "me"
    server.pages["/openapi.json"] = lambda _body: {"info": {"title": "🦙 llama.cpp Python API"}}
    assert isinstance(watched.use(server.url), p.Loaded)
    watched.wait_for(p.ServerState, lambda state: state.healthy)
    server.will(Act(pieces=[chunk("slow")], stall=True))
    first = watched.start(session="a")
    watched.wait(p.Delta)
    second = watched.start(session="b")
    assert "one at a time" in watched.wait_for(p.ServerState, lambda state: state.detail).detail
    watched.worker.submit(p.Stop(turn=first))
    assert watched.wait_for(p.ServerState, lambda state: not state.detail).healthy
    watched.settle()
    assert (watched.ends(first)[0].reason, watched.ends(second)[0].reason) == ("stopped", "stop")


def test_the_wait_of_one_turn_is_not_ended_by_another(watched: ServerRig, server: BadServer) -> None:
    watched.wait_for(p.ServerState, lambda state: state.healthy)
    server.will(Act(status=429, headers={"Retry-After": "60"}))
    first = watched.start(session="a")
    watched.wait_for(p.ServerState, lambda state: "60 s" in state.detail)
    server.will(Act(status=429, headers={"Retry-After": "0.02"}))
    second = watched.start(session="b")
    watched.wait_for(p.ServerState, lambda state: "0.02 s" in state.detail)
    still = watched.wait_for(p.ServerState, lambda state: "0.02 s" not in state.detail)
    assert "60 s" in still.detail
    watched.worker.submit(p.Stop(turn=first))
    watched.settle()
    assert (watched.ends(first)[0].reason, watched.ends(second)[0].reason) == ("stopped", "stop")


def test_a_wait_that_was_stopped_is_told_no_more(watched: ServerRig, server: BadServer) -> None:
    watched.wait_for(p.ServerState, lambda state: state.healthy)
    server.will(Act(status=429, headers={"Retry-After": "60"}))
    name = watched.start()
    watched.wait_for(p.ServerState, lambda state: "trying again in 60 s" in state.detail)
    watched.worker.submit(p.Stop(turn=name))
    assert watched.wait_for(p.ServerState, lambda state: not state.detail).healthy
    watched.settle()
    assert watched.ends(name)[0].reason == "stopped"
