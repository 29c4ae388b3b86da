"""The contract of engines, on the libraries of another interpreter. `run.py` runs it; the default run does not.

Most of it are the very tests that quantchat's own engine passes.
"""

from __future__ import annotations

import json

import msgspec
from safetensors.torch import load_file, save_file

from engine import test_continuing, test_override, test_turns
from engine.rig import GREEDY, Rig, asking
from engine.test_turns import SAMPLED
from quantchat.domain.chat import ChatMessage
from quantchat.engine import protocol as p

SHARED = (
    test_turns.test_a_drawn_seed_is_reported_and_repeats_the_text,
    test_turns.test_a_kept_session_is_told_reused_and_forgotten,
    test_turns.test_a_prompt_longer_than_the_window_fails_by_name,
    test_turns.test_a_second_turn_of_a_session_is_refused_as_busy,
    test_turns.test_a_turn_may_wait_behind_its_load_and_be_stopped_there,
    test_turns.test_events_and_statistics_of_a_turn,
    test_turns.test_every_turn_ends_exactly_once,
    test_turns.test_loading_stops_the_turn_first,
    test_turns.test_ping_is_answered_while_busy,
    test_turns.test_prompt_is_counted_and_shown,
    test_turns.test_same_seed_same_text,
    test_turns.test_sessions_are_answered_side_by_side,
    test_turns.test_stop_of_another_turn_is_ignored,
    test_turns.test_stop_through_the_worker_keeps_the_text,
    test_turns.test_the_next_turn_may_follow_the_end_at_once,
    test_turns.test_tokens_are_counted_while_an_answer_runs,
    test_continuing.test_an_answer_in_two_parts_is_the_answer_in_one,
    test_continuing.test_an_answer_that_goes_on_elsewhere_has_the_same_words_before_it,
    test_continuing.test_what_is_counted_is_what_is_sent_and_turns_leave_rarely,
    test_continuing.test_a_question_that_alone_is_too_long_is_refused_when_counted_and_when_sent,
    test_override.test_the_template_reaches_the_prompt_and_what_is_counted,
    test_override.test_a_template_that_fails_ends_its_turn_with_a_reason,
)
"""Collected here, with the rig of this folder."""
globals().update({test.__name__: test for test in SHARED})

SHORT = msgspec.structs.replace(GREEDY, max_new_tokens=6)
CAPITAL = [ChatMessage("user", "What is the capital of France?")]


def test_the_stack_is_named(rig: Rig, method: str) -> None:
    library = {"gptq": "auto-gptq", "awq": "autoawq"}[method]
    assert {"torch", "transformers", library} <= rig.ready.versions.keys()
    assert rig.ready.versions["transformers"].startswith("4.")
    print(rig.ready.python, rig.ready.versions)


def test_the_load_says_what_computes(rig: Rig, models, method: str) -> None:
    report = rig.load(models / method, kernel="marlin").report
    assert report.kernel == {"gptq": "auto-gptq cuda_old", "awq": "autoawq WQLinear_IPEX"}[method]
    assert sum(report.layers.values()) == 15
    assert (report.device, report.dtype, report.context_window) == ("cpu", "bfloat16", 256)
    assert report.kv_token_bytes == 512
    assert report.decoding == "eager", report.decoding_reason
    assert any("`kernel`" in warning for warning in report.warnings)


def test_the_words_are_those_of_gptqmodel(gptq: Rig, models, method: str) -> None:
    own = Rig()
    try:
        assert isinstance(own.load(models / method), p.Loaded)
        assert gptq.answer(sampling=SHORT)[0][:4] == own.answer(sampling=SHORT)[0][:4] != ""
    finally:
        assert own.worker.close(timeout=30)


def test_unquantized_folders_load_by_that_transformers(rig: Rig, models) -> None:
    assert rig.load(models / "dense").report.kernel == "dense"
    assert rig.answer(sampling=SHORT)[1].statistics.new_tokens == 6


def test_transformers_own_loop_gives_the_same_words(rig: Rig, models, method: str) -> None:
    rig.load(models / method)
    text = rig.answer(sampling=SHORT)[0]
    assert rig.load(models / method, decoding="generate").report.decoding == "generate"
    assert rig.answer(sampling=SHORT)[0] == text
    assert rig.answer(sampling=replace_seed(3))[0] == rig.answer(sampling=replace_seed(3))[0]


def replace_seed(seed: int):
    return msgspec.structs.replace(SAMPLED, seed=seed, max_new_tokens=8)


def test_a_missing_tensor_fails_the_load(rig: Rig, copy_of) -> None:
    tensors = load_file(copy_of / "model.safetensors")
    del tensors["model.norm.weight"]
    save_file(tensors, copy_of / "model.safetensors", {"format": "pt"})
    failed = rig.load(copy_of)
    assert isinstance(failed, p.LoadFailed)
    assert failed.error.title == "The model's files lack weights"


def test_a_tensor_that_nothing_takes_fails_the_load(rig: Rig, copy_of) -> None:
    tensors = load_file(copy_of / "model.safetensors")
    tensors["model.layers.0.mlp.other.qweight"] = tensors["model.layers.0.mlp.up_proj.qweight"].clone()
    save_file(tensors, copy_of / "model.safetensors", {"format": "pt"})
    failed = rig.load(copy_of)
    assert isinstance(failed, p.LoadFailed)
    assert "mlp.other.qweight" in failed.error.detail


def test_what_the_library_cannot_read_is_refused_with_a_way_out(rig: Rig, copy_of, method: str) -> None:
    config = json.loads((copy_of / "config.json").read_text())
    config["quantization_config"]["bits"] = 3
    config["quantization_config"]["checkpoint_format"] = config["quantization_config"]["format"] = "gptq_v2"
    (copy_of / "config.json").write_text(json.dumps(config))
    (copy_of / "quantize_config.json").unlink()
    failed = rig.load(copy_of)
    assert isinstance(failed, p.LoadFailed)
    assert "[engine]" in failed.error.remedy, failed


def test_the_folder_is_left_alone(rig: Rig, copy_of) -> None:
    before = {file.name: file.stat().st_mtime_ns for file in copy_of.iterdir()}
    assert isinstance(rig.load(copy_of), p.Loaded)
    assert {file.name: file.stat().st_mtime_ns for file in copy_of.iterdir()} == before


def test_measuring_works_and_quantizing_is_refused(gptq: Rig, models) -> None:
    gptq.worker.submit(p.MeasureBandwidth(job="b"))
    assert gptq.wait(p.JobFinished, p.JobFailed).figures["token_bytes"] > 0
    gptq.worker.submit(p.Evaluate(job="e", window=64, tokens=256))
    assert gptq.wait(p.JobFinished, p.JobFailed).figures["perplexity"] > 1
    gptq.worker.submit(p.Quantize(job="q", source=str(models / "dense"), output="/nowhere"))
    assert "quantchat's own interpreter" in gptq.wait(p.JobFinished, p.JobFailed).error.remedy


def test_a_real_model_answers_and_reuses_its_history(rig: Rig, real, method: str) -> None:
    loaded = rig.load(real)
    assert isinstance(loaded, p.Loaded), loaded
    text, end = rig.answer(CAPITAL, msgspec.structs.replace(GREEDY, max_new_tokens=16), session="real")
    # How it goes on differs with the CPU that quantized it.
    assert text.startswith("The capital of France is Paris")
    assert end.reason == "stop"
    following = [*CAPITAL, ChatMessage("assistant", text), ChatMessage("user", "And of Italy?")]
    more, second = rig.answer(following, msgspec.structs.replace(GREEDY, max_new_tokens=12), session="real")
    assert second.statistics.reused_tokens >= end.statistics.prompt_tokens + end.statistics.new_tokens - 1
    assert "Rome" in more
    for name, statistics in (("first", end.statistics), ("second", second.statistics)):
        rate = (statistics.new_tokens - 1) / statistics.decode_seconds
        print(f"{name}: {statistics.prompt_tokens} prompt tokens, {statistics.reused_tokens} reused,", end=" ")
        print(f"{statistics.prefill_seconds:.2f} s to the first token, {rate:.1f} tokens/s")
    print(text, "/", more, "/", loaded.report.kernel, loaded.report.seconds)


def test_an_old_question_is_asked_like_a_new_one(gptq: Rig) -> None:
    """Regenerate and edit cut the cache in the middle."""
    first = gptq.answer(session="s", sampling=SHORT)[0]
    assert gptq.answer(asking("Something else?"), session="s", sampling=SHORT)[1].reason in ("length", "stop")
    assert gptq.answer(session="s", sampling=SHORT)[0] == first
