"""What the endpoint answers, as types: nothing is made of them but the document's schemas.

A field without a default is always there; one that is UNSET is there where it was asked for.
"""
