"""What is wrong in `config.toml`."""

from __future__ import annotations

import shlex
from collections.abc import Iterator

from quantchat import paths
from quantchat.services.doctor.findings import Finding
from quantchat.services.doctor.machine import Machine
from quantchat.store.settings import load_settings


def look_at_settings(machine: Machine) -> Iterator[Finding]:
    """Read the settings; what cannot be understood is passed over elsewhere, with a default in its place."""
    file = paths.config_file()
    _, problems = load_settings(file)
    for problem in problems:
        words = f"{problem.title}. {problem.detail}"
        fix = f"${{EDITOR:-vi}} {shlex.quote(str(file))}"
        yield Finding(id="settings", title="Settings", level="yellow", found=words, fix=fix)
    if not problems:
        yield Finding(id="settings", title="Settings", found=str(file) if file.exists() else "none but the defaults")
