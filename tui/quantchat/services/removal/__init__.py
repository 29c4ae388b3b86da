"""Delete a model from the disk: first a plan that says what goes, then its execution.

In a hub cache only what no other snapshot needs goes. Links are unlinked and never followed. Nothing outside the
folders that are searched for models is touched.
"""

from quantchat.services.removal.execution import remove, require_free
from quantchat.services.removal.plans import plan_removal
from quantchat.services.removal.removals import Removal

__all__ = ["Removal", "plan_removal", "remove", "require_free"]
