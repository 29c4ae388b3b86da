"""Moments and ids of what comes from other programs: never later than now, and the same at each import."""

from __future__ import annotations

import hashlib
import math
from datetime import UTC, datetime

from quantchat.domain.chat import utc_now

EARLIEST = datetime(1970, 1, 1, tzinfo=UTC)


def moment(value: object) -> datetime | None:
    """Return the time that a file names, as seconds since 1970 or in ISO 8601; None if it names none."""
    try:
        if isinstance(value, str):
            return within(datetime.fromisoformat(value))
        if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
            return within(datetime.fromtimestamp(value, UTC))
    except (ValueError, OverflowError, OSError):
        pass
    return None


def within(when: datetime) -> datetime:
    """Return a time in UTC, between 1970 and now: what lies in the future would stand before all that comes."""
    try:
        aware = when.replace(tzinfo=UTC) if when.utcoffset() is None else when.astimezone(UTC)
    except (ValueError, OverflowError):
        return EARLIEST
    return min(max(aware, EARLIEST), utc_now())


def stamped(when: datetime, key: str) -> str:
    """Make the id that a session or message of this time and key has at each import."""
    digest = hashlib.sha256(key.encode("utf-8", "replace")).hexdigest()
    return f"{when:%Y%m%dT%H%M%S}{when.microsecond // 1000:03d}-{digest[:6]}"
