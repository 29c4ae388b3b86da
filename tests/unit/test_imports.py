"""What each part imports, proved in fresh interpreters, and the contracts between the layers."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parents[2]
HEAVY = {"torch", "transformers", "gptqmodel", "optimum", "accelerate", "numpy"}


def imported_by(statement: str) -> set[str]:
    """Top-level modules that a fresh interpreter holds after a statement."""
    code = f"{statement}\nimport sys\nprint(*sorted({{name.partition('.')[0] for name in sys.modules}}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.splitlines()[-1].split())


def run_cli(*arguments: str) -> str:
    """A statement that runs the command line and survives its exit."""
    return f"""
import sys
sys.argv = {["quantchat", *arguments]!r}
from quantchat.cli import main
try:
    main()
except SystemExit as end:
    assert not end.code, end.code
"""


def test_the_probe_sees_imports() -> None:
    assert "textual" in imported_by("import textual.app")


@pytest.mark.parametrize("option", ["--help", "--version"])
def test_help_and_version_are_light(option: str) -> None:
    assert not imported_by(run_cli(option)) & (HEAVY | {"textual", "rich"})


def test_listing_models_is_light(tmp_path: Path) -> None:
    statement = f"import os; os.environ.update(QUANTCHAT_HOME={str(tmp_path)!r}, HF_HUB_CACHE={str(tmp_path)!r})"
    assert not imported_by(statement + run_cli("models")) & (HEAVY | {"textual"})


def test_the_screen_imports_no_model_library() -> None:
    modules = imported_by("import quantchat.ui.app")
    assert "textual" in modules
    assert not modules & HEAVY


def test_the_first_frame_waits_for_nothing_that_is_needed_later() -> None:
    code = "import sys, quantchat.ui.app; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    own = {name for name in done.stdout.split() if name.startswith("quantchat.")}
    late = {"engine.client", "engine.frames", "store.history", "store.journal", "store.recovery", "catalog.scan"}
    late |= {"ui.completion.completer", "ui.editor", "ui.screens.help", "ui.screens.palette", "ui.screens.themes"}
    late |= {"catalog.template", "services.fit", "services.info", "ui.screens.info"}
    late |= {"services.finding", "store.index", "ui.screens.search"}
    late |= {"services.listings", "store.keys", "ui.screens.servers", "ui.screens.serverform"}
    assert "quantchat.ui.screens.chat" in own
    assert not own & {f"quantchat.{name}" for name in late}


@pytest.mark.parametrize(
    "package",
    [
        "domain.chat",
        "domain.memory",
        "catalog.scan",
        "catalog.roots",
        "catalog.template",
        "store.sessions",
        "store.recovery",
        "store.themes",
        "store.settings",
        "hardware.gpu",
        "hardware.host",
        "hardware.driver",
        "services.doctor.checks",
        "cli.doctor",
        "engine.client",
        "services.desk",
        "services.demo",
        "services.bench",
        "services.info",
        "services.removal",
        "services.serving.small",
        "services.snippets",
        "cli.bench",
        "cli.modelcard",
        "cli.serving",
        "engine.worker",
        "quantize.jobs",
    ],
)
def test_nothing_below_the_screen_imports_textual_or_torch(package: str) -> None:
    assert not imported_by(f"import quantchat.{package}") & (HEAVY | {"textual"})


@pytest.mark.engine
def test_the_engine_imports_no_textual() -> None:
    modules = imported_by("import quantchat.engine.tasks")
    assert "torch" in modules
    assert "textual" not in modules


def test_the_contracts_hold() -> None:
    tool = Path(sys.executable).parent / "lint-imports"
    done = subprocess.run([str(tool), "--no-cache"], cwd=CHECKOUT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    assert "0 broken" in done.stdout
