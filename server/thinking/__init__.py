"""Thoughts before an answer: what an engine can't hold to a form, or end in time, by itself.

A form holds from an answer's first token, so what is thought before it is asked for by itself; and
thoughts that take more than their budget are ended by us. Either way the engine is asked twice,
the second time to go on from all that there is so far, of which it has most in its KV cache.
"""

from server.thinking.plan import Thinking
from server.thinking.stream import generate
from server.thinking.watch import MOST_BLANKS

__all__ = ["MOST_BLANKS", "Thinking", "generate"]
