"""The tmux around us: its version and the options that decide over copying, Esc and colours."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator

from quantchat.services.doctor.findings import Finding
from quantchat.services.doctor.gpus import version_of
from quantchat.services.doctor.machine import Machine
from quantchat.services.doctor.mending import install

OLDEST = (3, 2)
"""The first whose `load-buffer` has `-w`, which passes a copy on to the terminal."""
SLOW_ESCAPE = 50
SECONDS = 3.0
_FACTS = "#{client_termname}|#{client_termfeatures}"


def look_at_tmux(machine: Machine) -> Iterator[Finding]:
    """Ask the server that this pane belongs to."""
    if not machine.terminal or "TMUX" not in machine.env:
        return
    version = _tmux(machine, "-V")
    if version is None or (said := _tmux(machine, "display-message", "-p", _FACTS)) is None:
        words = "This is a pane of tmux, but the server does not answer."
        yield Finding(id="tmux", title="tmux", level="yellow", found=words, fix="" if version else install("tmux"))
        return
    term, _, features = said.partition("|")
    known = frozenset(features.split(","))
    yield _version(machine, version)
    yield _clipboard(machine, term, known)
    yield from _escape(machine)
    yield from _colours(machine, term, known)


def _version(machine: Machine, said: str) -> Finding:
    number = version_of(said)
    passes = _option(machine, "-gwv", "allow-passthrough")
    words = f"{said.removeprefix('tmux ')}; allow-passthrough is {passes or 'unknown to it'}, and not needed"
    if number and number < OLDEST:
        words = f"{said} is older than {OLDEST[0]}.{OLDEST[1]}: copies stay in tmux's own buffer."
        return Finding(id="tmux", title="tmux", level="yellow", found=words, fix=install("tmux"))
    return Finding(id="tmux", title="tmux", found=words)


def _clipboard(machine: Machine, term: str, features: frozenset[str]) -> Finding:
    """tmux takes quantchat's copies by its own command, and passes them on unless it is told not to."""
    setting = _option(machine, "-sv", "set-clipboard")
    identifier, title = "tmux.set-clipboard", "tmux: clipboard"
    if setting == "off":
        words = "set-clipboard is off: copies stay in tmux's own buffer."
        return Finding(id=identifier, title=title, level="yellow", found=words, fix=_set("-s", "set-clipboard", "on"))
    if "clipboard" not in features:
        words = f"tmux does not know that {term or 'the terminal'} has a clipboard: copies stay in tmux's own buffer."
        return Finding(id=identifier, title=title, level="yellow", found=words, fix=_feature(term, "clipboard"))
    return Finding(id=identifier, title=title, found=f"set-clipboard {setting}: copies reach the terminal")


def _escape(machine: Machine) -> Iterator[Finding]:
    said = _option(machine, "-sv", "escape-time") or ""
    if not said.isdigit():
        return
    if int(said) > SLOW_ESCAPE:
        words = f"escape-time is {said} ms: Esc, which stops an answer, waits so long."
        fix = _set("-s", "escape-time", "10")
        yield Finding(id="tmux.escape-time", title="tmux: Esc", level="yellow", found=words, fix=fix)
    else:
        yield Finding(id="tmux.escape-time", title="tmux: Esc", found=f"escape-time is {said} ms")


def _colours(machine: Machine, term: str, features: frozenset[str]) -> Iterator[Finding]:
    inner = _option(machine, "-sv", "default-terminal") or ""
    if inner in ("screen", "tmux", "xterm"):
        words = f"default-terminal is {inner}: programs believe in 8 or 16 colours."
        fix = _set("-s", "default-terminal", "tmux-256color")
        yield Finding(id="tmux.default-terminal", title="tmux: terminal", level="yellow", found=words, fix=fix)
    if "RGB" in features:
        yield Finding(id="tmux.colours", title="tmux: colours", found="16 million colours")
    else:
        words = f"tmux does not know that {term or 'the terminal'} has 16 million colours, and sends 256."
        fix = _feature(term, "RGB")
        yield Finding(id="tmux.colours", title="tmux: colours", level="yellow", found=words, fix=fix)


def _option(machine: Machine, flags: str, name: str) -> str | None:
    return _tmux(machine, "show-options", flags, name)


def _tmux(machine: Machine, *words: str) -> str | None:
    ran = machine.run("tmux", *words, seconds=SECONDS)
    return ran.out.strip() if ran and ran.status == 0 else None


def _set(*words: str) -> str:
    """Change an option now and for the next servers; what is stored takes effect at once by the first command."""
    return f"tmux set {shlex.join(words)}\necho {shlex.quote(f'set {shlex.join(words)}')} >> ~/.tmux.conf"


def _feature(term: str, feature: str) -> str:
    """Clients learn of features when they attach; this one is replaced by a new one, wherever its server listens."""
    name = term if re.fullmatch(r"[\w.+-]+", term) else "*"
    again = """tmux detach-client -E "tmux -S '${TMUX%%,*}' attach\""""
    return f"{_set('-as', 'terminal-features', f',{name}:{feature}')}\n{again}"
