"""Kill the program at random moments, again and again, on one home: nothing that it was given is lost.

`QUANTCHAT_TEST_CRASHES=300` runs as many rounds, and prints its figures; `QUANTCHAT_TEST_SEED` sets another beginning.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from random import Random

import pytest

from unit.safety.crash_check import Aftermath, events_of

CHILD = Path(__file__).with_name("crash_child.py")
TESTS = Path(__file__).parents[2]
FILES = TESTS / "data" / "sessions"
ROUNDS = int(os.environ.get("QUANTCHAT_TEST_CRASHES", "10"))
SEED = int(os.environ.get("QUANTCHAT_TEST_SEED", "20261121"))
ENOUGH = 100
"""Rounds of which many must have met what they are for; of a few, it is chance and the machine's speed."""
LONGEST = 1.6
"""Seconds that a round goes on after its program has begun; some are killed as it begins."""


def killed_child(home: Path, seed: int, log: Path) -> float:
    """Run one child until a moment that the seed names; return when it was killed."""
    moment = Random(seed).choice([0.05, 0.3, LONGEST]) * Random(seed + 1).random()
    command = [sys.executable, str(CHILD), str(home), str(seed), str(log), str(FILES)]
    with open(log.with_suffix(".err"), "wb") as errors:
        child = subprocess.Popen(command, env={**os.environ, "PYTHONPATH": str(TESTS)}, stderr=errors)
        deadline = time.monotonic() + 60
        while not log.exists() and child.poll() is None and time.monotonic() < deadline:
            time.sleep(0.002)
        end = time.monotonic() + moment
        while time.monotonic() < end and child.poll() is None:
            time.sleep(0.001)
        killed = time.monotonic()
        child.kill()
    code = child.wait()
    assert code == -9, f"round {seed} ended by itself: {log.with_suffix('.err').read_text()[-2000:]}"
    return killed


@pytest.mark.timeout(60 + 12 * ROUNDS)
def test_kills_at_random_moments(tmp_path: Path) -> None:
    home, figures = tmp_path / "home", Counter[str]()
    for number in range(ROUNDS):
        seed = SEED + number
        log = tmp_path / f"{seed}.log"
        killed = killed_child(home, seed, log)
        after = Aftermath(home, log, killed, figures)
        figures["rounds"] += 1
        for what in after.under_way():
            figures[f"killed while it {what}"] += 1
        try:
            after.check()
        except AssertionError as error:
            raise AssertionError(f"round {number}, seed {seed}: {error}; log {log}") from error
        figures["events"] += len(events_of(log))
    print("\n" + "\n".join(f"{name}: {count:,}" for name, count in sorted(figures.items())))
    assert figures["sessions read"] > 0
    if ROUNDS >= ENOUGH:
        assert figures["killed while it asks"] > ROUNDS // 10
        assert figures["words due"] > 0
