"""The one error of a request; the rest of trtbuild's errors aren't in the repository."""


class Refused(ValueError):
    """A request that can't be served; the message begins with the input that is to blame."""
