"""Completing commands and paths in the prompt."""
