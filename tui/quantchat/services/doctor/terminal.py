"""What the terminal can show and take: colours, characters, clipboard, and whether a dropped line ends everything."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from quantchat.domain.terminals import is_deaf, takes_text
from quantchat.services.doctor.findings import Finding
from quantchat.services.doctor.machine import Machine
from quantchat.services.doctor.mending import install


def look_at_terminal(machine: Machine) -> Iterator[Finding]:
    """Read what the environment tells of the terminal; what tmux tells is looked at apart."""
    env = machine.env
    if not machine.terminal:
        yield Finding(id="terminal", title="Terminal", found="not looked at: the words do not go to one")
        return
    yield _colours(env)
    yield from _characters(env)
    if "TMUX" not in env:
        yield _clipboard(env)
    if is_over_ssh(env):
        yield _ssh(machine)


def is_over_ssh(env: Mapping[str, str]) -> bool:
    """Whether this shell was reached over SSH."""
    return "SSH_CONNECTION" in env or "SSH_TTY" in env


def _colours(env: Mapping[str, str]) -> Finding:
    term = env.get("TERM", "")
    if term in ("", "dumb", "unknown"):
        words = f"TERM is {term!r}: nothing can be drawn on this terminal."
        return Finding(id="terminal", title="Terminal", level="red", found=words, fix="export TERM=xterm-256color")
    if env.get("NO_COLOR"):
        return Finding(id="terminal", title="Terminal", found=f"{term}, without colours (NO_COLOR is set)")
    if env.get("COLORTERM", "").lower() in ("truecolor", "24bit"):
        return Finding(id="terminal", title="Terminal", found=f"{term}, 16 million colours")
    if "256color" not in term and "kitty" not in term:
        words = f"{term}: themes are shown in 16 colours."
        fix = "" if is_deaf(env) else "export TERM=xterm-256color"
        return Finding(id="terminal", title="Terminal", level="yellow", found=words, fix=fix)
    if is_over_ssh(env) and "TMUX" not in env:
        words = f"{term}: 256 colours. ssh does not pass COLORTERM on; if the terminal has more, say so."
        fix = "export COLORTERM=truecolor"
        return Finding(id="terminal", title="Terminal", level="yellow", found=words, fix=fix)
    return Finding(id="terminal", title="Terminal", found=f"{term}, 256 colours")


def _characters(env: Mapping[str, str]) -> Iterator[Finding]:
    locale = env.get("LC_ALL") or _own_lc_ctype(env) or env.get("LANG") or ""
    if "utf" not in locale.lower():
        words = f"The locale is {locale or 'not set'}: tmux and other programs replace what is not ASCII."
        yield Finding(id="locale", title="Characters", level="yellow", found=words, fix="export LC_ALL=C.UTF-8")


def _own_lc_ctype(env: Mapping[str, str]) -> str | None:
    """Without a locale Python sets LC_CTYPE for itself (PEP 538); the shell and tmux have none then."""
    try:
        began_with = Path("/proc/self/environ").read_bytes().split(b"\0")
    except OSError:
        return env.get("LC_CTYPE")
    return env.get("LC_CTYPE") if any(entry.startswith(b"LC_CTYPE=") and entry[9:] for entry in began_with) else None


def _clipboard(env: Mapping[str, str]) -> Finding:
    if is_deaf(env):
        words = "This terminal takes no text; copies are written to a file"
    elif takes_text(env):
        words = "copies go to the terminal (OSC 52), which is known to take them"
    elif "STY" in env:
        words = "copies go through GNU screen to the terminal (OSC 52), and to a file as well"
    else:
        words = "copies go to the terminal (OSC 52) and, as it may drop them, to a file as well"
    return Finding(id="clipboard", title="Clipboard", found=words)


def _ssh(machine: Machine) -> Finding:
    if "TMUX" in machine.env or "STY" in machine.env:
        words = "a dropped line leaves everything running; on a slow one `ssh -C` sends several times less"
        return Finding(id="ssh", title="SSH", found=words)
    words = "Neither tmux nor screen: a dropped line ends quantchat. Sessions are kept, the loaded model is not."
    fix = "tmux new -A -s chat" if machine.which("tmux") else f"{install('tmux')}\ntmux new -A -s chat"
    return Finding(id="ssh", title="SSH", level="yellow", found=words, fix=fix.strip())
