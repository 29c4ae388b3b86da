"""The program in a pseudo-terminal and in tmux, without a model."""

from __future__ import annotations

from scripted_run import scripted, scripted_start

__all__ = ["scripted", "scripted_start"]
