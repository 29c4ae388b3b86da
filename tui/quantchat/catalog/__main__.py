"""A process that reads model folders: a large header parsed on a thread would hold up the screen.

It reads a list of candidates from its stdin up to the end, and writes one frame with an entry for each, in this order.
"""

from __future__ import annotations

import gc
import struct
import sys

# msgspec takes it if it is there, and takes a sixth of this process's start for that; `typing` has all it needs.
sys.modules.setdefault("typing_extensions", None)  # type: ignore[arg-type]

import msgspec  # noqa: E402

from quantchat.catalog.candidates import Candidate  # noqa: E402
from quantchat.catalog.reading import read_entry  # noqa: E402

LENGTH = struct.Struct("<I")


def main() -> None:
    """Read what stdin names."""
    # What is read makes no cycles worth looking for, and the process ends soon.
    gc.disable()
    candidates = msgspec.msgpack.decode(sys.stdin.buffer.read(), type=list[Candidate])
    for candidate in candidates:
        frame = msgspec.msgpack.encode(read_entry(candidate))
        sys.stdout.buffer.write(LENGTH.pack(len(frame)) + frame)
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
