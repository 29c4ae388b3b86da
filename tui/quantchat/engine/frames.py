"""The frames that carry the protocol over a pipe.

A frame is four bytes of length, big endian, then one msgpack map whose `type` names the message.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Generic, TypeVar

import msgspec

from quantchat.domain.text import without_surrogates
from quantchat.engine.protocol import Command, Event
from quantchat.errors import EngineError

MAX_FRAME = 64 * 1024 * 1024
_HEADER = struct.Struct(">I")

_encoder = msgspec.msgpack.Encoder()
command_decoder: msgspec.msgpack.Decoder[Command] = msgspec.msgpack.Decoder(Command)
event_decoder: msgspec.msgpack.Decoder[Event] = msgspec.msgpack.Decoder(Event)


class ProtocolError(EngineError):
    """The other side sent something that is not a frame of this protocol."""

    code = "protocol"


def encode_frame(word: Command | Event) -> bytes:
    """Return the bytes of one frame; a lone surrogate, as in a file name that is not UTF-8, becomes a question mark.

    Raises:
        ProtocolError: if the message is larger than `MAX_FRAME` bytes.
    """
    try:
        body = _encoder.encode(word)
    except UnicodeEncodeError:
        body = _encoder.encode(without_surrogates(msgspec.to_builtins(word)))
    if len(body) > MAX_FRAME:
        raise ProtocolError("A message to the engine is too large", f"{len(body)} bytes, at most {MAX_FRAME}")
    return _HEADER.pack(len(body)) + body


W = TypeVar("W")


class FrameDecoder(Generic[W]):
    """Turns a byte stream into messages, however the bytes are cut."""

    def __init__(self, decoder: msgspec.msgpack.Decoder[W]) -> None:
        self._decoder = decoder
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[W]:
        """Take the next bytes and yield every message that they complete.

        Raises:
            ProtocolError: if the stream is not made of frames; it cannot be read further.
        """
        self._buffer += data
        while len(self._buffer) >= _HEADER.size:
            (length,) = _HEADER.unpack_from(self._buffer)
            if length > MAX_FRAME:
                raise ProtocolError("The engine pipe is out of step", f"a frame claims {length} bytes")
            end = _HEADER.size + length
            if len(self._buffer) < end:
                return
            body = bytes(self._buffer[_HEADER.size : end])
            del self._buffer[:end]
            yield self._decode(body)

    def _decode(self, body: bytes) -> W:
        try:
            return self._decoder.decode(body)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise ProtocolError("The engine pipe is out of step", str(error)) from error
