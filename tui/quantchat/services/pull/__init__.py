"""Fetching models from a hub into its cache: what there is, what of it is wanted, whether it fits, the download itself.

All talk with the hub happens in child processes (`python -m quantchat.services.pull`), because only a process can be
ended at any moment. Here is what both sides share and what the program's own side does.
"""
