"""What every dialect's request becomes: prompts, how to sample, how to answer; and its answer."""

from server.protocol.request.events import AnswerHead, CallDelta, TextEvent, TokenLogProb, Usage
from server.protocol.request.prompts import ChatPrompt, Prompt, TextPrompt, TokenPrompt
from server.protocol.request.sampling import Limits, Sampling
from server.protocol.request.text_request import AnswerForm, TextRequest, ToolUse

__all__ = [
    "AnswerForm",
    "AnswerHead",
    "CallDelta",
    "ChatPrompt",
    "Limits",
    "Prompt",
    "Sampling",
    "TextEvent",
    "TextPrompt",
    "TextRequest",
    "TokenLogProb",
    "TokenPrompt",
    "ToolUse",
    "Usage",
]
