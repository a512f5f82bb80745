"""What a model's answer is made of: reasoning, content and calls of tools, as they stream.

`parsing_for` says how one request's answers are read, `guide_for` what they are held to,
and `thinks_first` whether they are thought about before.
"""

from server.text.parser.choice import REASONING_PARSERS, TOOL_PARSERS, ParserChoice
from server.text.parser.guide import guide_for, wraps_calls
from server.text.parser.parsing import AnswerParser, Parsing, parsing_for
from server.text.parser.thinking import is_held, thinks_first
from server.text.scan.parts import Parts

__all__ = [
    "REASONING_PARSERS",
    "TOOL_PARSERS",
    "AnswerParser",
    "ParserChoice",
    "Parsing",
    "Parts",
    "guide_for",
    "is_held",
    "parsing_for",
    "thinks_first",
    "wraps_calls",
]
