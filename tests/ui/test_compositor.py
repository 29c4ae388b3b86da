"""What goes or comes between two layouts is drawn, also if somebody asked for a region meanwhile."""

from __future__ import annotations

import pytest
from textual._compositor import Compositor
from textual.app import App, ComposeResult
from textual.geometry import Size
from textual.widgets import Static

from quantchat.ui.wire.compositor import ExactCompositor


class TwoLines(App[None]):
    """Two lines, the first of which can go."""

    def compose(self) -> ComposeResult:
        yield Static("first", id="first")
        yield Static("second", id="second")


@pytest.mark.parametrize(("kind", "holds"), [(ExactCompositor, True), (Compositor, False)])
@pytest.mark.parametrize("goes", [True, False])
async def test_a_look_between_two_layouts_hides_no_change(kind: type[Compositor], holds: bool, goes: bool) -> None:
    app = TwoLines()
    async with app.run_test(size=(40, 10)) as pilot:
        await pilot.pause()
        first, second, screen = app.query_one("#first"), app.query_one("#second"), app.screen
        screen._compositor = compositor = kind()
        first.display = goes
        compositor.reflow(screen, Size(40, 10))
        region = first.region if goes else second.region
        compositor._dirty_regions.clear()
        first.display = not goes
        # As after a scroll, or after a change of a widget that is not shown.
        compositor.update_widgets({Static()})
        assert second.region.y == (0 if goes else 1)
        result = compositor.reflow(screen, Size(40, 10))
        assert (region in compositor._dirty_regions) is holds
        assert (first in result.shown) is (holds and not goes)
