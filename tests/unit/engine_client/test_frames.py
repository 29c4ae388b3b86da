"""The frame codec: any cut of the stream gives the same messages, and what is no frame is refused."""

from __future__ import annotations

import struct
from itertools import pairwise

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from quantchat.domain.chat import ChatMessage
from quantchat.domain.generation import SamplingSettings, TurnStatistics
from quantchat.engine import frames, protocol
from quantchat.engine.frames import MAX_FRAME, FrameDecoder, ProtocolError, command_decoder, encode_frame, event_decoder
from quantchat.engine.protocol import (
    Command,
    Delta,
    Event,
    Failed,
    Finished,
    Generate,
    Loaded,
    LoadReport,
    Pong,
    Prefill,
    Ready,
    Stop,
)
from quantchat.errors import ErrorReport

# Text that crosses a pipe has been through UTF-8, so it holds no lone surrogates.
texts = st.text(st.characters(codec="utf-8"))
counts = st.integers(0, 2**53)

events: st.SearchStrategy[Event] = st.one_of(
    st.builds(Ready, pid=counts, versions=st.dictionaries(texts, texts), devices=st.tuples(texts)),
    st.builds(Prefill, turn=texts, done=counts, total=counts, reused=counts),
    st.builds(Delta, turn=texts, text=texts, channel=st.sampled_from(["answer", "thinking"]), tokens=counts),
    st.builds(
        Finished,
        turn=texts,
        reason=st.sampled_from(["stop", "length", "stopped", "context", "error"]),
        statistics=st.builds(TurnStatistics, new_tokens=counts, decode_seconds=st.floats(0, 1e6)),
    ),
    st.builds(Failed, turn=texts, error=st.builds(ErrorReport, code=texts, title=texts, detail=texts)),
    st.builds(
        Loaded,
        request=texts,
        report=st.builds(
            LoadReport,
            path=texts,
            name=texts,
            architecture=texts,
            device=texts,
            dtype=texts,
            kernel=texts,
            layers=st.dictionaries(texts, counts),
        ),
    ),
    st.builds(Pong, request=texts, busy=st.booleans()),
)
commands: st.SearchStrategy[Command] = st.one_of(
    st.builds(
        Generate,
        turn=texts,
        messages=st.lists(st.builds(ChatMessage, role=st.sampled_from(["system", "user", "assistant"]), content=texts)),
        sampling=st.builds(SamplingSettings, max_new_tokens=st.integers(1, 10_000)),
    ),
    st.builds(Stop, turn=texts),
)


def pieces(stream: bytes, cuts: list[int]) -> list[bytes]:
    """Cut a stream at the given places, in their order of size; equal places give empty pieces."""
    places = [0, *sorted(cut % (len(stream) + 1) for cut in cuts), len(stream)]
    return [stream[start:end] for start, end in pairwise(places)]


@given(st.lists(events, max_size=5), st.lists(st.integers(0, 10_000), max_size=12))
def test_any_cut_of_a_stream_of_events_gives_the_same_events(messages: list[Event], cuts: list[int]) -> None:
    stream = b"".join(map(encode_frame, messages))
    decoder = FrameDecoder(event_decoder)
    assert [event for piece in pieces(stream, cuts) for event in decoder.feed(piece)] == messages


@given(st.lists(commands, max_size=3))
def test_commands_arrive_byte_by_byte(messages: list[Command]) -> None:
    decoder = FrameDecoder(command_decoder)
    stream = b"".join(map(encode_frame, messages))
    assert [command for byte in stream for command in decoder.feed(bytes([byte]))] == messages


@given(events, st.data())
def test_a_frame_without_its_end_says_nothing(event: Event, data: st.DataObject) -> None:
    frame = encode_frame(event)
    cut = data.draw(st.integers(0, len(frame) - 1))
    assert list(FrameDecoder(event_decoder).feed(frame[:cut])) == []


@given(st.integers(MAX_FRAME + 1, 2**32 - 1))
def test_a_length_above_the_bound_is_refused_before_its_body_comes(length: int) -> None:
    with pytest.raises(ProtocolError, match=str(length)):
        list(FrameDecoder(event_decoder).feed(struct.pack(">I", length)))


@given(st.binary(max_size=200))
@example(b"")
@example(msgspec.msgpack.encode({"type": "no-such-event"}))
@example(msgspec.msgpack.encode({"type": "stop", "turn": "a command, not an event"}))
@example(msgspec.msgpack.encode({"type": "pong", "request": 7, "busy": True}))
@example(b"\x91" * 2000)
@example(b"\x81\xa4type\xa2\xff\xfe")
@example(b"\x83\xa4type\xa4pong\xa7request\xa2\xff\xfe\xa4busy\xc3")
def test_a_body_that_is_no_event_is_refused_and_nothing_else_is_raised(body: bytes) -> None:
    try:
        decoded = list(FrameDecoder(event_decoder).feed(struct.pack(">I", len(body)) + body))
    except ProtocolError:
        return
    assert [type(event).__module__ for event in decoded] == [protocol.__name__]


@given(st.lists(events, max_size=3))
def test_events_before_the_garbage_are_not_lost(messages: list[Event]) -> None:
    decoder = FrameDecoder(event_decoder)
    seen: list[Event] = []
    with pytest.raises(ProtocolError):
        seen.extend(decoder.feed(b"".join(map(encode_frame, messages)) + b"Traceback (most recent call last):"))
    # `extend` keeps what came before the exception: the decoder yields as it goes.
    assert seen == messages


def test_a_message_above_the_bound_is_not_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frames, "MAX_FRAME", 1024)
    with pytest.raises(ProtocolError, match="too large"):
        encode_frame(Stop(turn="x" * 1024))


def test_a_name_that_is_not_utf8_can_be_sent() -> None:
    event = Failed(turn="t", error=ErrorReport(code="load", title="no", detail="/models/\udcff"))
    (back,) = FrameDecoder(event_decoder).feed(encode_frame(event))
    assert isinstance(back, Failed)
    assert back.error.detail == "/models/?"
