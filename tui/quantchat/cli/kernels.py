"""Options that name a kernel."""

from __future__ import annotations

import click


def known_kernel(_context: click.Context, _option: click.Parameter, name: str | None) -> str | None:
    """Refuse a kernel that is in no row of the table, and list those that are."""
    if name is None:
        return None
    from quantchat.domain.kernel_table import NAMES

    short = dict.fromkeys(kernel.partition("_")[2] for kernel in NAMES)
    if name in (*NAMES, *short):
        return name
    raise click.BadParameter(f"{name!r} is no kernel. There are {', '.join(short)}; also with gptq_ or awq_ before.")


def known_kernels(context: click.Context, option: click.Parameter, names: tuple[str, ...]) -> tuple[str, ...]:
    """Refuse the first that is no kernel."""
    for name in names:
        known_kernel(context, option, name)
    return names
