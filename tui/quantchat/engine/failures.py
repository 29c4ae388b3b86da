"""How a load fails: in the words of the libraries, and with the next kernel to try."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from quantchat.domain.loading import KernelRefusal
from quantchat.engine.tensors import DAMAGED_REMEDY
from quantchat.errors import KernelError, LoadError, QuantchatError


class KernelFailed(KernelError):
    """A kernel failed or was refused.

    Attributes:
        next_kernel: The candidate after it, for a fresh engine process.
        failed: The kernel and how it failed; None if it was not tried.
    """

    def __init__(self, error: QuantchatError, next_kernel: str | None, failed: KernelRefusal | None = None) -> None:
        super().__init__(error.report.title, error.report.detail, error.report.remedy, code=error.report.code)
        self.next_kernel, self.failed = next_kernel, failed


@contextmanager
def translated(title: str) -> Iterator[None]:
    """Explain what the libraries raise over a folder's files."""
    try:
        yield
    except QuantchatError:
        raise
    except Exception as error:
        raise LoadError(title, first_lines(error), DAMAGED_REMEDY) from error


def first_lines(error: Exception) -> str:
    """Name an exception of a library, with the beginning of its message."""
    return f"{type(error).__name__}: {str(error)[:500]}"
