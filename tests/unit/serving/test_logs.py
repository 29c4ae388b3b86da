"""What is read out of the logs of servers: lines of real ones."""

from __future__ import annotations

import pytest

from quantchat.services.serving.causes import CAUSES
from quantchat.services.serving.failures import explain, fitting_context, root_error
from quantchat.services.serving.stages import READY, Stage, StartLog
from stub_vllm import KV_MESSAGE, USUAL, WRAPPED

CORE = "(EngineCore pid=82) ERROR 08-14 08:34:03 [core.py:1349] "
WORKER = "(EngineCore_DP0 pid=461101) (RayWorkerWrapper pid=372171) INFO 12-18 06:00:55 [gpu_worker.py:315] "
SHARDS = "Loading safetensors checkpoint shards:  40% Completed | 2/5 [00:00<00:00,  4.45it/s]"


def read(*lines: str) -> list[Stage]:
    log = StartLog()
    return [stage for line in lines if (stage := log.read(line)) is not None]


def test_the_steps_of_a_start_come_in_their_order() -> None:
    log = StartLog()
    stages = [stage for line in USUAL if (stage := log.read(line.strip())) is not None]
    titles = list(dict.fromkeys(stage.title for stage in stages))
    assert titles == [
        "reading the config",
        "starting the engine",
        "loading weights",
        "compiling",
        "measuring memory",
        "capturing CUDA graphs",
        "opening the port",
    ]
    assert log.figures == {
        "version": "0.33.0",
        "kernel": "MarlinLinearKernel",
        "weights": "2.8871 GiB",
        "KV cache": "188,512 tokens",
        "at once": "92.05x",
    }


def test_progress_is_counted() -> None:
    assert read(SHARDS) == [Stage("loading weights", 2, 5)]
    assert read("Loading weights:  50%|█████     | 136/272 [00:00<00:00, 1027.51it/s]") == [
        Stage("loading weights", 136, 272)
    ]
    graphs = "Capturing CUDA graphs (mixed prefill-decode, FULL):  70%|███████   | 47/67 [00:04<00:01, 15.06it/s]"
    assert read(graphs) == [Stage("capturing CUDA graphs", 47, 67)]


def test_the_small_server_tells_when_it_begins_to_load() -> None:
    assert read("[transformers] Loading /models/a b@main") == [Stage("loading weights")]


def test_a_step_that_is_over_does_not_come_back() -> None:
    assert read(WORKER + "Available KV cache memory: 152.07 GiB", SHARDS) == [Stage("measuring memory")]


def test_ready_is_told_by_both_servers() -> None:
    assert read("INFO:     Application startup complete.") == [Stage(READY)]


def test_other_lines_say_nothing() -> None:
    assert read("WARNING: type hints mismatch", "", "INFO:     127.0.0.1:3 - GET /health HTTP/1.1 200 OK") == []


@pytest.mark.parametrize(
    ("line", "code", "said"),
    [
        (CORE + "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB.", "out-of-memory", "GPU"),
        (
            "ERROR:    [Errno 98] error while attempting to bind on address ('127.0.0.1', 8): address already in use",
            "port-in-use",
            "--port",
        ),
        (KV_MESSAGE.format(wanted=40960, fitting=9344), "context-too-long", "--max-model-len 9344"),
        (
            "ValueError: To serve at least one request with the models's max seq len (32768), 16.00 GiB KV cache is "
            "needed, which is larger than the available KV cache memory (4.85 GiB)",
            "out-of-memory",
            "--tensor-parallel-size",
        ),
        (
            "ValueError: Free memory on device cuda:0 (2.6/121.63 GiB) on startup is less than desired GPU memory "
            "utilization (0.08, 9.73 GiB). Decrease GPU memory utilization or reduce GPU memory used by others.",
            "memory-taken",
            "2.6 of 121.63 GiB",
        ),
        ("ValueError: Unknown quantization method: exl2. Must be one of ['awq', 'fp8'].", "quantization", "exl2"),
        (
            "vllm serve: error: argument --quantization/-q: invalid choice: 'gptq_marlin' (choose from 'awq')",
            "quantization",
            "gptq_marlin",
        ),
        (
            "ValueError: Quantization method specified in the model config (awq) does not match the quantization "
            "method specified in the `quantization` argument (gptq_marlin).",
            "quantization",
            "says awq",
        ),
        (
            "  Value error, Unsupported quantization config: bits=3, sym=False [type=value_error]",
            "quantization",
            "bits=3",
        ),
        ("ValueError: Cannot find the config file for gptq", "quantization", "gptq"),
        (
            "ValueError: The quantization method awq is not supported for the current GPU. Minimum capability: 75. "
            "Current capability: 70.",
            "gpu-too-old",
            "the card has 70",
        ),
        (
            "ValueError: torch.bfloat16 is not supported for quantization method awq. Supported dtypes: [float16]",
            "dtype",
            "--dtype float16",
        ),
        (
            "ValueError: Bfloat16 is only supported on GPUs with compute capability of at least 8.0. Your Tesla T4 GPU",
            "dtype",
            "--dtype float16",
        ),
        ("ValueError: The model type 'gemma3' does not support float16. Reason: Numerical", "dtype", "bfloat16"),
        (
            "ValueError: Total number of attention heads (32) must be divisible by tensor parallel size (3).",
            "parallel",
            "32 attention heads, which 3",
        ),
        (
            "ValueError: Weight input_size_per_partition = 4736 is not divisible by min_thread_k = 128. Consider",
            "parallel",
            "4736",
        ),
        ("RuntimeError: Failed to infer device type, please set the environment variable", "no-gpu", "--backend"),
        ("ValueError: Model architectures ['FooForCausalLM'] are not supported for now.", "architecture", "FooFor"),
        (
            "Please pass the argument `trust_remote_code=True` to allow custom code to be run.",
            "remote-code",
            "--trust-remote-code",
        ),
        (
            "ValueError: User-specified max_model_len (99999) is greater than the derived max_model_len "
            "(max_position_embeddings=8192 or model_max_length=None in model's config.json).",
            "context-too-long",
            "--max-model-len 8192",
        ),
        ("ValueError: Ray does not allocate any GPUs on the driver node.Driver IP: 10.0.0.1", "ray", "ray status"),
        ("RuntimeError: NCCL error: unhandled system error", "nccl", "NCCL_DEBUG"),
        ("ImportError: Missing dependencies for serving. Install with `pip install", "serving-extra", "serving"),
        ("vllm: error: unrecognized arguments: --max-modell-len 5", "serving-option", "--max-modell-len 5"),
        ("ModuleNotFoundError: No module named 'flash_attn.ops'", "package-missing", "flash_attn.ops"),
        ("RuntimeError: [enforce fail] DefaultCPUAllocator: can't allocate memory: you tried", "out-of-memory", "host"),
    ],
)
def test_known_causes_are_explained(line: str, code: str, said: str) -> None:
    report = explain(["INFO before", line, WRAPPED, "warnings.warn('resource_tracker: ')"], 1, "/logs/serve.log")
    assert report.code == code
    assert said in report.sentence()
    assert "/logs/serve.log" in report.sentence()
    assert "{" not in report.sentence()


def test_every_cause_is_tried_above() -> None:
    rows = next(mark for mark in test_known_causes_are_explained.pytestmark if mark.name == "parametrize").args[1]
    matched = [next(cause for cause in CAUSES if cause.pattern.search(row[0])) for row in rows]
    assert [cause for cause in CAUSES if cause not in matched] == []


def test_others_are_shown_as_python_wrote_them() -> None:
    lines = [
        "(Worker pid=166) WARNING 08-28 07:38:13 [utils.py:368] fallback. Exception: could not create a primitive",
        "(Worker pid=114) ERROR 08-14 08:34:03 [multiproc_executor.py:1018] WorkerProc hit an exception.",
        CORE + "my.package.StrangeError: the moon is full",
        CORE + "EngineCore failed to start.",
        WRAPPED,
        "UserWarning: resource_tracker: There appear to be 1 leaked shared_memory objects",
    ]
    assert root_error(lines) == "my.package.StrangeError: the moon is full"
    report = explain(lines, 1, "/logs/serve.log")
    assert report.code == "serve"
    assert report.detail.startswith("my.package.StrangeError: the moon is full\n\nThe end of its log (/logs/serve.log)")
    assert "leaked" in report.detail


@pytest.mark.parametrize(("status", "said"), [(3, "exit status 3"), (137, "memory"), (139, "signal 11")])
def test_a_silent_end_is_told_by_its_status(status: int, said: str) -> None:
    assert said in explain([], status, "log").detail


def test_the_context_that_would_fit_is_read() -> None:
    lines = [KV_MESSAGE.format(wanted=40960, fitting=9344), WRAPPED]
    assert fitting_context(explain(lines, 1, "log"), lines) == 9344
    useless = [KV_MESSAGE.format(wanted=40960, fitting=96)]
    assert fitting_context(explain(useless, 1, "log"), useless) is None
    other = ["ValueError: nothing of the kind"]
    assert fitting_context(explain(other, 1, "log"), other) is None
