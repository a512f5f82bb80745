"""Rules of speculative decoding and of the logits that it can't give."""

from __future__ import annotations

from builder.targets.tensorrt_llm.case import Case, Rule

EAGLE_MAX_BATCH_SIZE = 512
EAGLE_MAX_DRAFT_LEN = 256
_WITH_HEADS = ("medusa", "eagle", "explicit_draft_tokens")


def _mode(case: Case) -> str:
    return case.config.speculative_decoding_mode


def _no_heads(case: Case) -> str | None:
    if _mode(case) not in _WITH_HEADS or _mode(case) == case.own_mode:
        return None
    own = "no draft heads" if case.own_mode == "none" else f"heads for {case.own_mode}"
    return f"{_mode(case)} and a {case.architecture} checkpoint with {own}"


def _unused_heads(case: Case) -> str | None:
    if case.own_mode == "none" or _mode(case) in _WITH_HEADS:
        return None
    return f"heads for {case.own_mode} and speculative_decoding_mode {_mode(case)}"


def _no_mode(case: Case) -> str | None:
    draft = case.config.max_draft_len
    return f"max_draft_len {draft}" if draft > 0 and _mode(case) == "none" else None


def _no_length(case: Case) -> str | None:
    if _mode(case) == "none" or case.config.max_draft_len > 0:
        return None
    return f"{_mode(case)} and max_draft_len {case.config.max_draft_len}"


def _other_length(case: Case) -> str | None:
    own, asked = case.own_draft_len, case.config.max_draft_len
    if _mode(case) not in _WITH_HEADS or own is None or asked in (own, 0):
        return None
    return f"max_draft_len {asked}, and the heads draft {own}"


def _beams(case: Case) -> str | None:
    if _mode(case) == "none" or case.config.max_beam_width == 1:
        return None
    return f"{_mode(case)} and max_beam_width {case.config.max_beam_width}"


def _long_draft(case: Case) -> str | None:
    draft, length = case.config.max_draft_len, case.config.max_seq_len
    if _mode(case) == "none" or length is None or draft < length:
        return None
    return f"max_draft_len {draft} and max_seq_len {length}"


def _few_tokens(case: Case) -> str | None:
    config = case.config
    need = config.max_batch_size * (config.max_draft_len + 1)
    if _mode(case) == "none" or config.max_num_tokens >= need:
        return None
    return (
        f"max_num_tokens {config.max_num_tokens}, max_batch_size {config.max_batch_size} and"
        f" max_draft_len {config.max_draft_len}, which need {need}"
    )


def _context_logits(case: Case) -> str | None:
    if not case.config.gather_context_logits or case.config.max_draft_len <= 0:
        return None
    return f"gather_context_logits and max_draft_len {case.config.max_draft_len}"


def _eagle_batch(case: Case) -> str | None:
    size = case.config.max_batch_size
    return _of_eagle(case, f"max_batch_size {size}", size > EAGLE_MAX_BATCH_SIZE)


def _eagle_draft(case: Case) -> str | None:
    length = case.config.max_draft_len
    return _of_eagle(case, f"max_draft_len {length}", length > EAGLE_MAX_DRAFT_LEN)


def _eagle_stages(case: Case) -> str | None:
    return _of_eagle(case, f"{case.pp} pipeline ranks", case.pp > 1)


def _unpaged(case: Case) -> str | None:
    needs = _mode(case) in ("eagle", "draft_tokens_external")
    if not needs or case.plugins.use_paged_context_fmha:
        return None
    return f"{_mode(case)} and use_paged_context_fmha disable"


def _of_eagle(case: Case, found: str, wrong: bool) -> str | None:
    return found if wrong and _mode(case) == "eagle" else None


DRAFTS = (
    Rule(
        name="draft-heads",
        what="the checkpoint can't draft for itself this way",
        found=_no_heads,
        do="make a checkpoint with the heads, or choose lookahead_decoding or "
        "draft_tokens_external, which need none",
        source="builder.py, build; models/{medusa,eagle,redrafter}",
    ),
    Rule(
        name="draft-heads-used",
        what="a checkpoint with draft heads must be built to use them",
        found=_unused_heads,
        do="leave --speculative out: it is read from the checkpoint",
        source="builder.py, build",
    ),
    Rule(
        name="draft-mode",
        what="max_draft_len is for speculative decoding",
        found=_no_mode,
        do="give --speculative too, or leave --max-draft-len out",
        source="builder.py, build",
    ),
    Rule(
        name="draft-length",
        what="speculative decoding needs the length of a draft",
        found=_no_length,
        do="give --max-draft-len",
        source="builder.py, build",
    ),
    Rule(
        name="draft-length-of-heads",
        what="the length of a draft is fixed by the checkpoint's heads",
        found=_other_length,
        do="leave --max-draft-len out",
        source="builder.py, build; models/{medusa,eagle,redrafter}",
    ),
    Rule(
        name="draft-beams",
        what="speculative decoding doesn't go with beam search",
        found=_beams,
        do="leave --max-beam-width at 1",
        source="generation_mixin.py, get_profiles_ranges",
    ),
    Rule(
        name="draft-within-seq-len",
        what="a draft must be shorter than max_seq_len",
        found=_long_draft,
        do="lower --max-draft-len or raise --max-seq-len",
        source="follows from draft-num-tokens and num-tokens-of-batch",
    ),
    Rule(
        name="draft-num-tokens",
        what="max_num_tokens must hold the drafts of a full batch",
        found=_few_tokens,
        do="raise --max-num-tokens or lower --max-batch-size",
        source="builder.py, build",
    ),
    Rule(
        name="draft-context-logits",
        what="a prompt's logits can't be had together with drafts",
        found=_context_logits,
        do="ask for --gather-logits generation",
        source="commands/build.py, main",
    ),
    Rule(
        name="eagle-batch",
        what=f"EAGLE takes at most {EAGLE_MAX_BATCH_SIZE} sequences",
        found=_eagle_batch,
        do="lower --max-batch-size",
        source="builder.py, build",
    ),
    Rule(
        name="eagle-draft",
        what=f"EAGLE takes drafts of at most {EAGLE_MAX_DRAFT_LEN} tokens",
        found=_eagle_draft,
        do="make the checkpoint with a smaller max_draft_len",
        source="builder.py, build",
    ),
    Rule(
        name="eagle-pipeline",
        what="EAGLE isn't divided over pipeline ranks",
        found=_eagle_stages,
        do="make the checkpoint with --tp alone",
        source="examples/eagle/README.md",
    ),
    Rule(
        name="draft-paged-context",
        what="this speculative decoding needs use_paged_context_fmha",
        found=_unpaged,
        do="enable it; with an INT8 KV cache it can't be",
        source="builder.py, build; examples/draft_target_model/README.md",
    ),
)
