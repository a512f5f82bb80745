"""`input`: a text or items, read, checked, and put into the form in which they are kept."""

from server.protocol.responses.input.items import Reference, read_input
from server.protocol.responses.input.structs import ITEMS

__all__ = ["ITEMS", "Reference", "read_input"]
