"""What a job tells: a share of the whole that never falls, and a stop at the next question."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quantchat.engine.protocol import Event, JobProgress
from quantchat.errors import Cancelled
from quantchat.quantize.watch import Watch

STAGES = ("reading", "working", "writing")


def told(events: list[Event]) -> list[tuple[str, float]]:
    return [(event.stage, event.share) for event in events if isinstance(event, JobProgress)]


def test_stages_fill_the_whole_by_their_weights() -> None:
    events: list[Event] = []
    watch = Watch(events.append, lambda: False, "q", {"reading": 1, "working": 8, "writing": 1})
    watch.report("reading", 1, 2)
    watch.report("working")
    watch.report("working", 4, 8)
    watch.report("writing")
    watch.finish()
    assert told(events) == [
        ("reading", pytest.approx(0.05)),
        ("working", pytest.approx(0.1)),
        ("working", pytest.approx(0.5)),
        ("writing", pytest.approx(0.9)),
        ("done", 1.0),
    ]


def test_a_new_plan_fills_what_is_left() -> None:
    events: list[Event] = []
    watch = Watch(events.append, lambda: False, "q", {"reading": 1, "working": 1})
    watch.report("reading", 1, 1)
    watch.plan({"working": 1, "writing": 1})
    watch.report("writing", 1, 2)
    assert told(events)[-1] == ("writing", pytest.approx(0.875))


@given(st.lists(st.tuples(st.sampled_from([*STAGES, "unplanned"]), st.integers(0, 9), st.integers(0, 9))))
def test_the_share_never_falls_and_stays_within_the_whole(steps: list[tuple[str, int, int]]) -> None:
    events: list[Event] = []
    watch = Watch(events.append, lambda: False, "q", dict.fromkeys(STAGES, 1.0))
    for stage, done, total in steps:
        watch.report(stage, done, total)
    watch.finish()
    shares = [share for _, share in told(events)]
    assert shares == sorted(shares)
    assert shares[-1] == 1.0


def test_steps_that_do_not_rise_are_not_told() -> None:
    events: list[Event] = []
    watch = Watch(events.append, lambda: False)
    for done in (1, 1, 0, 2):
        watch.report("working", done, 4)
    assert [event.done for event in events if isinstance(event, JobProgress)] == [1, 2]


def test_a_stop_ends_the_items_at_the_next_one() -> None:
    seen: list[int] = []
    watch = Watch(lambda _: None, lambda: len(seen) == 2)
    with pytest.raises(Cancelled):
        seen.extend(watch.each(range(5), "working", 5))
    assert seen == [0, 1]
