"""Side by side: one prompt, answered by two models, two kernels or two settings."""

from quantchat.services.comparing.comparison import Comparison as Comparison
from quantchat.services.comparing.sides import Change as Change
from quantchat.services.comparing.sides import Choice as Choice
from quantchat.services.comparing.sides import Question as Question
from quantchat.services.comparing.sides import Side as Side
from quantchat.services.comparing.sides import Spoke as Spoke
