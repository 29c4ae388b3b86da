"""Where the program begins: for the installed command, and for `python -m quantchat`."""

from __future__ import annotations

import signal


def main() -> None:
    """Run the command line; Ctrl+C while it is still imported ends the process in silence, as it does elsewhere."""
    handler = signal.getsignal(signal.SIGINT)
    if handler is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from quantchat.cli import main as command_line

    if handler is signal.default_int_handler:
        signal.signal(signal.SIGINT, handler)
    command_line()


if __name__ == "__main__":
    main()
