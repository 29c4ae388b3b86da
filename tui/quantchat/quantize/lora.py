"""A LoRA adapter merged into its base model, through PEFT, which is installed separately."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from quantchat.errors import JobError
from quantchat.quantize.keeping import keep_files, matching
from quantchat.quantize.watch import transformers_progress

if TYPE_CHECKING:
    from quantchat.quantize.watch import Watch

WEIGHTS = "adapter_model.safetensors"
INSTALL = "pip install 'quantchat[lora]'"
BASE = "reading the base model"
MERGING = "merging the adapter"
SAVING = "writing the merged weights"
STAGES = {BASE: 2.0, MERGING: 2.0, SAVING: 1.0}
"""About how long each takes beside the others."""


def merge(base: Path, adapter: Path, folder: Path, watch: Watch) -> Path:
    """Write the base with the adapter's changes added to its weights into a new folder, and return it.

    Raises:
        JobError: if PEFT is not installed, or the two do not belong together.
    """
    if not (adapter / "adapter_config.json").is_file():
        raise JobError(
            f"{adapter} is no adapter: it has no adapter_config.json", remedy="Check the path", code="adapter"
        )
    # PEFT would read a pickle in its place, or ask the hub for it.
    if not (adapter / WEIGHTS).is_file():
        detail, remedy = f"{adapter} has no {WEIGHTS}", "Save the adapter as safetensors"
        raise JobError("The adapter's weights cannot be read", detail, remedy, code="adapter")
    peft = _peft()
    import torch
    from transformers import AutoModelForCausalLM

    watch.report(BASE)
    with transformers_progress(watch, BASE):
        model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.bfloat16, device_map={"": "cpu"})
    watch.check()
    watch.report(MERGING)
    merged = _merged(peft, model, adapter)
    watch.check()
    watch.report(SAVING)
    folder.mkdir(parents=True)
    merged.save_pretrained(folder)
    keep_files(base, folder)
    if any(matching(adapter, ("tokenizer*",))):
        keep_files(adapter, folder)
    return folder


def _merged(peft: Any, model: Any, adapter: Path) -> Any:
    try:
        adapted = peft.PeftModel.from_pretrained(model, str(adapter))
        # With the check, a merge that gives NaN is an error.
        return adapted.merge_and_unload(safe_merge=True)
    except (AttributeError, KeyError, NotImplementedError, RuntimeError, TypeError, ValueError) as error:
        detail = f"{adapter}: {type(error).__name__}: {str(error)[:300]}"
        remedy = "Check that it is a LoRA adapter, and that the source is the model that it was trained on"
        raise JobError("The adapter cannot be merged into its base", detail, remedy, code="adapter") from error


def _peft() -> Any:
    try:
        import peft
    except ImportError as error:
        detail = f"PEFT is not installed ({error})"
        raise JobError("Adapters cannot be merged yet", detail, f"Install it: {INSTALL}", code="no-peft") from error
    return peft
