"""What the doctor says of the interpreters that the settings name."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from doctor.rig import clean_env, doctor, make_venv, only
from quantchat.domain.backends import Interpreters
from quantchat.domain.stacks import NEEDS, is_current
from quantchat.services.doctor import stacks
from quantchat.services.doctor.machine import Machine
from quantchat.services.doctor.stacks import Stack, ask, configured, troubles_of

WHOLE = dict.fromkeys((*NEEDS, "accelerate", "peft"), "1") | {"torch": "2.8.0", "transformers": "4.51.3"}


def stack(
    *without: str, python: tuple[int, ...] = (3, 11, 7), errors: dict[str, str] | None = None, **more: str
) -> Stack:
    held = {name: version for name, version in WHOLE.items() if name not in without}
    return Stack(python, held | {name.replace("_", "-"): version for name, version in more.items()}, errors or {})


def words(found: Stack, *methods: str) -> list[tuple[str, str]]:
    return [(trouble.level, f"{trouble.words} {trouble.fix}") for trouble in troubles_of(found, "/p", list(methods))]


def test_a_whole_stack_has_no_trouble() -> None:
    assert words(stack(auto_gptq="0.7.1"), "gptq") == []
    assert words(stack(autoawq="0.2.9", intel_extension_for_pytorch="2.8.0"), "awq") == []


def test_the_current_libraries_need_no_retired_ones() -> None:
    current = stack(gptqmodel="7.7.0", transformers="5.23.0")
    assert is_current(current.versions)
    assert words(current, "gptq", "awq", "") == []


def test_a_python_that_is_too_old_is_all_that_is_said() -> None:
    ((level, said),) = words(stack("torch", python=(3, 10, 12)), "gptq")
    assert level == "red"
    assert "it is Python 3.10.12; engines need 3.11" in said


def test_missing_packages_come_with_the_command() -> None:
    ((level, said),) = words(stack("msgspec", "torch", auto_gptq="0.7.1"), "gptq")
    assert level == "red"
    assert said.endswith("/p -m pip install msgspec torch")


@pytest.mark.parametrize(("method", "package"), [("gptq", "auto-gptq"), ("awq", "autoawq")])
def test_the_library_of_a_method_is_missing(method: str, package: str) -> None:
    ((level, said),) = words(stack(), method)
    assert (level, said.endswith(f"/p -m pip install {package}")) == ("red", True)


def test_autoawq_without_its_cpu_kernels_and_a_stack_for_nothing_quantized_are_noted() -> None:
    assert [level for level, _ in words(stack(autoawq="0.2.9"), "awq")] == ["yellow"]
    assert [level for level, _ in words(stack(), "")] == ["yellow"]


def test_an_import_that_fails_is_told() -> None:
    found = stack(auto_gptq="0.7.1", errors={"auto_gptq": "ImportError: cannot import name 'no_init_weights'"})
    ((level, said),) = words(found, "gptq")
    assert level == "red"
    assert "auto_gptq cannot be imported there: ImportError: cannot import name" in said


def test_one_interpreter_for_two_settings_is_asked_once() -> None:
    assert configured(Interpreters(gptq_python="~/old", awq_python="~/old")) == {
        str(Path("~/old").expanduser()): ["gptq_python", "awq_python"]
    }


@pytest.fixture
def program(tmp_path: Path) -> Callable[[str], str]:
    def make(script: str) -> str:
        file = tmp_path / "program"
        file.write_text(f"#!/bin/sh\n{script}\n")
        file.chmod(0o755)
        return str(file)

    return make


@pytest.mark.parametrize("script", ["exit 0", "echo 'unknown option' >&2; exit 2", "echo '[1, 2'", "echo '{\"a\": 1}'"])
def test_what_is_no_interpreter_is_told(program: Callable[[str], str], script: str) -> None:
    said = ask(Machine(), program(script))
    assert isinstance(said, str)
    assert said.startswith("it is no Python interpreter.")


def test_what_hangs_is_told_by_the_time_that_it_had(
    program: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Was “it is no Python interpreter”."""
    monkeypatch.setattr(stacks, "PROBE_SECONDS", 0.01)
    assert ask(Machine(), program("exec sleep 600")) == "it did not answer within 0.01 s."


def test_a_bare_name_is_looked_for_where_engines_look(tmp_path: Path) -> None:
    """The doctor looked beside quantchat's own interpreter too, where no engine is looked for."""
    said = ask(Machine(env={"PATH": str(tmp_path)}), Path(sys.executable).name)
    assert "cannot be started" in str(said)


def test_an_interpreter_that_greets_is_refused(program: Callable[[str], str]) -> None:
    """Engines answer on standard output; one in a wrapper that writes there was found good, and never started."""
    line = json.dumps({"python": [3, 11, 7], "versions": WHOLE})
    said = ask(Machine(), program(f"echo 'Welcome to this environment'; echo '{line}'; echo '{{\"end\": true}}'"))
    assert isinstance(said, str)
    assert "writes before it runs a program: Welcome to this environment" in said


def test_a_program_that_is_not_there_or_may_not_be_run(tmp_path: Path) -> None:
    for path in (str(tmp_path / "nothing"), str(tmp_path)):
        assert "cannot be started" in str(ask(Machine(), path))


def test_an_import_that_kills_the_interpreter_is_told(program: Callable[[str], str]) -> None:
    line = json.dumps({"python": [3, 11, 7], "versions": WHOLE})
    found = ask(Machine(), program(f"echo '{line}'; echo 'noise'; echo 'Illegal instruction' >&2; kill -ILL $$"))
    assert isinstance(found, Stack)
    assert found.versions == WHOLE
    assert "SIGILL" in found.died
    assert any("SIGILL" in said for _, said in words(found, ""))


def test_a_real_interpreter_answers(tmp_path: Path) -> None:
    """One that has msgspec and a transformers that cannot be imported, and no torch."""
    python = make_venv(tmp_path / "venv", "torch", "torch-*", "transformers", "gptqmodel*")
    (package,) = python.parents[1].glob("lib/python*/site-packages")
    (package / "transformers.py").write_text("print('{\"python\": 1}')\nraise SystemExit('no torch')\n")
    found = ask(Machine(env=clean_env(tmp_path)), str(python))
    assert isinstance(found, Stack)
    assert found.python == sys.version_info[:3]
    assert set(NEEDS) <= found.versions.keys()
    assert "torch" not in found.versions
    assert found.errors["transformers"] == "SystemExit: no torch"
    assert not found.died


def test_the_doctor_reads_the_settings(tmp_path: Path) -> None:
    env = clean_env(tmp_path / "home")
    config = tmp_path / "home" / "config" / "config.toml"
    seen = doctor(*only("stacks"), env=env)
    assert seen["stacks"].level == "green"
    config.parent.mkdir(parents=True, exist_ok=True)
    config.write_text('[engine]\ngptq_python = "/nowhere/python"\n')
    seen = doctor(*only("stacks"), env=env)
    assert seen.status == 1
    assert seen["stack.gptq_python"].found.startswith("engine.gptq_python = /nowhere/python, it cannot be started")
