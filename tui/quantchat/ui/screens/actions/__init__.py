"""What the commands of the main screen do, by topic: one `action_` method per command of the table."""

from __future__ import annotations

from quantchat.ui.screens.actions.appearance import AppearanceActions
from quantchat.ui.screens.actions.drafts import DraftActions
from quantchat.ui.screens.actions.models import ModelActions
from quantchat.ui.screens.actions.prompting import PromptActions
from quantchat.ui.screens.actions.pulling import PullActions
from quantchat.ui.screens.actions.reading import ReadingActions
from quantchat.ui.screens.actions.sampling import SamplingActions
from quantchat.ui.screens.actions.sessions import SessionActions
from quantchat.ui.screens.actions.turns import TurnActions


class ChatActions(
    TurnActions,
    PromptActions,
    DraftActions,
    ModelActions,
    PullActions,
    SessionActions,
    SamplingActions,
    ReadingActions,
    AppearanceActions,
):
    """Mixin of `ChatScreen`: one method per command of the table."""
