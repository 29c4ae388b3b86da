"""The text that a quantizer watches the model read, as token ids.

The bundled set, `data/calibration.jsonl`, was written for quantchat and has its licence (MIT).
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import msgspec

from quantchat.domain.quantizing import ENOUGH_SAMPLES, SHORTEST_SAMPLE, CalibrationChoice, CalibrationReport
from quantchat.errors import JobError
from quantchat.paths import calibration_file
from quantchat.quantize.examples import Examples
from quantchat.quantize.prose import Prose, is_prose
from quantchat.quantize.rendering import has_template, rendered
from quantchat.quantize.textfile import opened

if TYPE_CHECKING:
    from quantchat.quantize.watch import Watch

BATCH = 8
"""Samples that the model reads at once; the shorter ones are padded."""
CHARACTERS = 32
"""Per token of the longest sample; text behind that is not even tokenized."""
TOKENIZING = "tokenizing the calibration text"

Rows = list[list[int]]


def prepare(
    tokenizer: Any, choice: CalibrationChoice, watch: Watch, batch: int = BATCH
) -> tuple[Rows, CalibrationReport]:
    """Return the samples as token ids, the longest first, and what became of the text.

    Args:
        tokenizer: The model's, of transformers.
        choice: Which text.
        watch: Hears of the progress; a stop is obeyed between two samples.
        batch: Samples that are padded to one length; 1 if none are.

    Raises:
        Cancelled: if the user said stop.
        JobError: if the choice or the file is not in order, or nothing long enough is left.
    """
    _require_sense(choice)
    length = within(choice, getattr(tokenizer, "model_max_length", None)).length
    path = Path(choice.path) if choice.path else calibration_file()
    with opened(path) as file:
        if is_prose(path, file):
            gathered = _gather_prose(tokenizer, file, path, choice.samples, length, watch)
        else:
            gathered = _gather_examples(tokenizer, file, path, choice.samples, length, watch)
    if not gathered.rows:
        raise JobError(
            "The calibration file holds no usable text",
            f"no sample of {path.name} has {SHORTEST_SAMPLE} tokens or more",
            "Name a file with longer texts, or take the bundled set",
        )
    gathered.rows.sort(key=len, reverse=True)
    template = "model" if has_template(tokenizer) else "none"
    return gathered.rows, described(gathered.report(template), gathered.rows, batch)


def check(choice: CalibrationChoice, watch: Watch) -> None:
    """Read the file of a choice once, before hours are spent on what it is for.

    Raises:
        Cancelled: if the user said stop.
        JobError: if the choice or the file is not in order.
    """
    _require_sense(choice)
    path = Path(choice.path) if choice.path else calibration_file()
    with opened(path) as file:
        if not is_prose(path, file):
            Examples(file, path).check(watch)


def within(choice: CalibrationChoice, window: int | None) -> CalibrationChoice:
    """Return a choice of samples no longer than a model's context window; 0 and None: it is not known."""
    if window is None or window < SHORTEST_SAMPLE:
        return choice
    return msgspec.structs.replace(choice, length=min(choice.length, int(window)))


def packed(rows: Rows, length: int) -> Rows:
    """Join samples and cut them anew into rows of one length, at most `length`; fewer tokens than rows are lost."""
    stream = [token for row in rows for token in row]
    count = -(-len(stream) // length)
    width = len(stream) // count if count else 0
    return [stream[number * width : (number + 1) * width] for number in range(count)]


def described(report: CalibrationReport, rows: Rows, batch: int = BATCH) -> CalibrationReport:
    """Return a report with the lengths of other rows than those that `prepare` gave, such as packed ones."""
    lengths = sorted(map(len, rows))
    return msgspec.structs.replace(
        report,
        samples=len(lengths),
        tokens=sum(lengths),
        shortest=lengths[0],
        middle=round(statistics.median(lengths)),
        longest=lengths[-1],
        padding=padding(lengths[::-1], batch),
    )


def padding(lengths: Sequence[int], batch: int = BATCH) -> int:
    """Return how many tokens fill up batches of samples to the longest in each."""
    batches = (lengths[start : start + batch] for start in range(0, len(lengths), batch))
    return sum(max(one) * len(one) - sum(one) for one in batches)


def _require_sense(choice: CalibrationChoice) -> None:
    if choice.length < SHORTEST_SAMPLE:
        detail = f"samples of {choice.length} tokens are too short to learn anything from"
        remedy = f"Choose {SHORTEST_SAMPLE} tokens or more, such as 512"
        raise JobError("The calibration cannot be made", detail, remedy)
    if choice.samples < 0:
        raise JobError(
            "The calibration cannot be made", f"{choice.samples} is no number of samples", "Choose 0 for all"
        )


class _Gathered:
    """Samples as they come, and what was left out."""

    def __init__(self, available: int = 0, duplicates: int = 0) -> None:
        self.rows: Rows = []
        self.available, self.duplicates = available, duplicates
        self.dropped = self.cut = 0
        self._seen: set[int] = set()

    def add(self, ids: list[int], cut: bool) -> None:
        """Take a sample unless it is too short or, with what was cut off, one that is there already."""
        digest = hash(tuple(ids))
        if len(ids) < SHORTEST_SAMPLE:
            self.dropped += 1
        elif digest in self._seen:
            self.duplicates += 1
        else:
            self._seen.add(digest)
            self.rows.append(ids)
            self.cut += cut

    def report(self, template: str) -> CalibrationReport:
        """Say what was left out, and of how many."""
        samples = len(self.rows)
        return CalibrationReport(
            samples=samples,
            available=max(self.available, samples),
            dropped=self.dropped,
            duplicates=self.duplicates,
            cut=self.cut,
            template=template,
        )


def _gather_examples(tokenizer: Any, file: BinaryIO, path: Path, count: int, length: int, watch: Watch) -> _Gathered:
    examples = Examples(file, path)
    examples.check(watch)
    gathered = _Gathered(len(examples), examples.duplicates)
    total = min(count or ENOUGH_SAMPLES, len(examples))
    for example in watch.each(examples.taken(total), TOKENIZING, total):
        if has_template(tokenizer):
            text, special = rendered(tokenizer, example), False
        else:
            text, special = "\n\n".join(message.content for message in example.messages), True
        ids = _ids(tokenizer, text[: length * CHARACTERS], special=special)
        gathered.add(ids[:length], len(ids) > length or len(text) > length * CHARACTERS)
    return gathered


def _gather_prose(tokenizer: Any, file: BinaryIO, path: Path, count: int, length: int, watch: Watch) -> _Gathered:
    prose = Prose(file, path, lambda text: len(_ids(tokenizer, text)), length)
    gathered = _Gathered()
    for text in prose.samples(count or ENOUGH_SAMPLES, watch, TOKENIZING):
        gathered.add(_ids(tokenizer, text)[:length], cut=False)
    return gathered


def _ids(tokenizer: Any, text: str, *, special: bool = True) -> list[int]:
    # A chat template writes the special tokens itself; adding them again would double the start token.
    made = tokenizer(text, add_special_tokens=special, return_token_type_ids=False, verbose=False)
    return [int(token) for token in made["input_ids"]]
