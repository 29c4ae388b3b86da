"""The screen. The only layer that imports Textual."""
