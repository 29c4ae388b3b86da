"""What the commands of the main screen do, by topic: one `action_` method per command of the table."""

from __future__ import annotations

from quantchat.ui.screens.actions.appearance import AppearanceActions
from quantchat.ui.screens.actions.asking import AskingActions
from quantchat.ui.screens.actions.comparing import CompareActions
from quantchat.ui.screens.actions.drafts import DraftActions
from quantchat.ui.screens.actions.evaluating import EvaluateActions
from quantchat.ui.screens.actions.exchange import ExchangeActions
from quantchat.ui.screens.actions.inspecting import InspectActions
from quantchat.ui.screens.actions.listing import ListingActions
from quantchat.ui.screens.actions.models import ModelActions
from quantchat.ui.screens.actions.prompting import PromptActions
from quantchat.ui.screens.actions.pulling import PullActions
from quantchat.ui.screens.actions.quantizing import QuantizeActions
from quantchat.ui.screens.actions.reading import ReadingActions
from quantchat.ui.screens.actions.sampling import SamplingActions
from quantchat.ui.screens.actions.servers import ServerActions
from quantchat.ui.screens.actions.sessions import SessionActions
from quantchat.ui.screens.actions.takeover import TakeOverActions
from quantchat.ui.screens.actions.temporary import TemporaryActions
from quantchat.ui.screens.actions.tree import TreeActions
from quantchat.ui.screens.actions.turns import TurnActions


class ChatActions(
    TurnActions,
    TreeActions,
    PromptActions,
    DraftActions,
    ModelActions,
    ServerActions,
    PullActions,
    QuantizeActions,
    SessionActions,
    ListingActions,
    ExchangeActions,
    SamplingActions,
    AskingActions,
    TemporaryActions,
    TakeOverActions,
    CompareActions,
    EvaluateActions,
    InspectActions,
    ReadingActions,
    AppearanceActions,
):
    """Mixin of `ChatScreen`: one method per command of the table."""
