"""The engine's end of the pipe while nobody reads."""

from __future__ import annotations

import os
import threading

from quantchat.engine.__main__ import Pipe
from quantchat.engine.frames import FrameDecoder, event_decoder
from quantchat.engine.protocol import Delta

TOKENS = 5000


def test_an_answer_goes_on_while_the_screen_does_not_read() -> None:
    reader, writer = os.pipe()
    try:
        pipe = Pipe(writer)
        work = threading.Thread(
            target=lambda: [pipe.emit(Delta(turn="20261121T035912123-a1b2c3", text=" word")) for _ in range(TOKENS)],
            daemon=True,
        )
        work.start()
        work.join(20)
        assert not work.is_alive()
        got = list(FrameDecoder(event_decoder).feed(os.read(reader, 1 << 20)))
        assert len(got) == TOKENS
    finally:
        os.close(writer)
        os.close(reader)
