"""Use cases in plain Python: conversations, the model library, the demo."""
