"""The whole GPU suite in one command: builds the kernels side by side, measures, then tests.

Run: python tests/gpu/run.py                 on a machine with a CUDA device
     python tests/gpu/run.py --device cpu    to prove, on tiny shapes, everything that needs no CUDA

The table goes to $OUT/gpu-table.md where OUT is set, else into docs/gpu.md. Ends with status 1 if anything failed.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
PAGE = ROOT / "docs" / "gpu.md"
BEGIN, END = "<!-- table -->\n", "<!-- end of table -->"
SECONDS = 530
BUILT = ("marlin_fp16", "exllamav2", "exllamav2_awq", "awq")
BUILD = """
import sys, time
from gptqmodel import extension
begun = time.perf_counter()
built = extension.load(sys.argv[1])[sys.argv[1]]
print(f"{sys.argv[1]}: {'built' if built else 'FAILED: ' + extension.error(sys.argv[1])[-300:]} "
      f"in {time.perf_counter() - begun:.0f} s", file=sys.stderr)
sys.exit(not built)
"""


class Deadline:
    """The seconds that are left for the whole run."""

    def __init__(self, seconds: float) -> None:
        self._end = time.monotonic() + seconds

    @property
    def left(self) -> float:
        return max(1.0, self._end - time.monotonic())


def run(command: list[str], deadline: Deadline, environment: dict[str, str]) -> bool:
    """Run one part until the deadline; say how long it took."""
    begun = time.monotonic()
    try:
        code = subprocess.run(command, cwd=ROOT, env=environment, timeout=deadline.left, check=False).returncode
    except subprocess.TimeoutExpired:
        code = 124
    print(f"== {' '.join(command[1:4])}: status {code} after {time.monotonic() - begun:.0f} s", flush=True)
    return code == 0


def build(deadline: Deadline, environment: dict[str, str]) -> bool:
    """Compile all kernels at once: none of them alone keeps many cores busy to its end."""
    jobs = [subprocess.Popen([sys.executable, "-c", BUILD, name], env=environment) for name in BUILT]
    done = True
    for job in jobs:
        try:
            done = job.wait(timeout=deadline.left) == 0 and done
        except subprocess.TimeoutExpired:
            job.kill()
            done = False
    return done


def publish(table: Path) -> None:
    """Put the table between its marks in the page."""
    page = PAGE.read_text(encoding="utf-8")
    head, _, rest = page.partition(BEGIN)
    _, _, tail = rest.partition(END)
    PAGE.write_text(head + BEGIN + table.read_text(encoding="utf-8") + END + tail, encoding="utf-8")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cuda:0")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="for everything together")
    parser.add_argument("--table", type=Path, help="where the table goes")
    options = parser.parse_args()
    deadline, cuda = Deadline(options.seconds), options.device.startswith("cuda")
    paths = [str(ROOT / "tui"), str(ROOT / "tests"), os.environ.get("PYTHONPATH", "")]
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join(path for path in paths if path),
        "QUANTCHAT_TEST_DEVICE": options.device,
        # Machete's sources would be downloaded.
        "GPTQMODEL_OFFLINE": "1",
    }
    out = os.environ.get("OUT")
    table = options.table or (Path(out) / "gpu-table.md" if out else ROOT / "gpu-table.md.part")
    shape = "7b" if cuda else "tiny"
    bench = [sys.executable, str(HERE / "bench.py"), "--device", options.device, "--shape", shape]
    # Other versions of the libraries warn of other things.
    tests = [sys.executable, "-m", "pytest", str(HERE), "-q", "-p", "no:cacheprovider", "-W", "ignore"]
    passed = [build(deadline, environment)] if cuda else []
    passed.append(run([*bench, "--output", str(table)], deadline, environment))
    passed.append(run(tests, deadline, environment))
    if cuda and not (options.table or out) and table.is_file():
        publish(table)
        table.unlink()
    return 0 if all(passed) else 1


if __name__ == "__main__":
    sys.exit(main())
