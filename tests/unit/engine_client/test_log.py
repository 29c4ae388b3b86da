"""What the engine's libraries print goes into its log, and a log that cannot be written keeps nothing from going on."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

PRINT = """
import logging, os, sys
from tqdm import tqdm
from quantchat.engine import quiet
protocol = quiet.redirect_output(sys.argv[1])
logging.basicConfig(stream=sys.stderr)
print("x" * 100_000)
print("a surrogate: \\udcff", file=sys.stderr, flush=True)
logging.getLogger().warning("a warning")
for _ in tqdm(range(3), desc="a bar"):
    pass
os.write(protocol, b"alive")
"""


def run(log: str) -> bytes:
    done = subprocess.run([sys.executable, "-c", PRINT, log], capture_output=True, check=True, timeout=60)
    assert done.stderr == b""
    return done.stdout


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full here")
def test_a_full_disk_costs_only_the_log() -> None:
    assert run("/dev/full") == b"alive"


def test_whatever_is_printed_stands_in_the_log(tmp_path: Path) -> None:
    log = tmp_path / "logs" / "engine.log"
    assert run(str(log)) == b"alive"
    text = log.read_text()
    assert "x" * 100_000 in text
    assert "a surrogate: \\udcff" in text
    assert "WARNING:root:a warning" in text
    assert "a bar: 100%" in text
