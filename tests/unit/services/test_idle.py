"""Unloading an idle model, on a clock that the test turns."""

from __future__ import annotations

from quantchat.services.idle import IdleUnload


class Watched:
    def __init__(self, minutes: int) -> None:
        self.now, self.busy, self.loaded = 0.0, False, True
        self.notes: list[str] = []
        self.idle = IdleUnload(
            minutes,
            in_use=lambda: self.busy,
            loaded=lambda: self.loaded,
            unload=self.notes.append,
            clock=lambda: self.now,
        )

    def after(self, minutes: float) -> int:
        self.now += 60 * minutes
        self.idle.check()
        return len(self.notes)


def test_unloads_once_when_the_time_is_over() -> None:
    watched = Watched(10)
    assert watched.after(9) == 0
    assert watched.after(1) == 1
    assert "10 min idle" in watched.notes[0]
    assert "loads again when you send" in watched.notes[0]
    watched.loaded = False
    assert watched.after(60) == 1


def test_an_answer_begins_the_time_anew() -> None:
    watched = Watched(10)
    watched.after(9)
    watched.busy = True
    watched.after(30)
    watched.busy = False
    assert watched.after(9) == 0
    assert watched.after(1) == 1


def test_an_answer_that_was_over_before_anybody_looked_counts() -> None:
    watched = Watched(10)
    watched.after(9)
    watched.idle.touch()
    assert watched.after(9) == 0
    assert watched.after(1) == 1


def test_the_time_begins_when_a_model_is_loaded() -> None:
    watched = Watched(10)
    watched.loaded = False
    watched.after(60)
    watched.loaded = True
    assert watched.after(9) == 0


def test_zero_is_never() -> None:
    assert Watched(0).after(10_000) == 0
