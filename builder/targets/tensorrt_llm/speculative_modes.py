"""The ways of speculative decoding that engines have. It imports nothing: commands list them."""

from __future__ import annotations

from collections.abc import Mapping

SPECULATIVE_MODES: Mapping[str, int] = {
    "none": 1,
    "draft_tokens_external": 2,
    "medusa": 4,
    "lookahead_decoding": 8,
    "explicit_draft_tokens": 16,
    "eagle": 32,
}
"""Mode → its bit in `SpeculativeDecodingMode`, which is what an engine's config.json holds."""
