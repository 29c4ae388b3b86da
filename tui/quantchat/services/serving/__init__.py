"""Serving a model to other programs and machines: the command of a server, its start-up, its end."""
