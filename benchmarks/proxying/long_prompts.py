"""Whether a long prompt's tokenizing holds up other streams."""

from __future__ import annotations

from proxying import rivals
from proxying.figures import Figure
from proxying.processes import load_beside, outcome
from proxying.rivals import Place
from proxying.setting import MODEL, long_text

PROMPT_TOKENS, STEP_MS, TOKENS, PROMPTS = 100_000, 5.0, 500, 4
MOST_STALL_MS = 20.0


def measure(place: Place, quick: bool) -> list[Figure]:
    """The longest gap of a paced stream while long prompts come to its proxy, beside the same
    prompts to another proxy on this machine; each the shortest of some rounds, as whatever else
    the machine does only adds."""
    prompt = long_text(place.tokenizer, place.work, PROMPT_TOKENS)
    longest_ms: dict[str, list[float]] = {"same": [], "other": []}
    with (
        rivals.triton(place, "--step-ms", STEP_MS, "--own-steps") as engine,
        rivals.ours(place, engine) as proxy,
        rivals.ours(place, engine) as other,
    ):
        for turn in range(4 if quick else 8):
            for name, target in (("other", other), ("same", proxy)):
                with (
                    load_beside(
                        proxy.port, MODEL, clients=1, requests=1, max_tokens=TOKENS
                    ) as stream,
                    load_beside(
                        target.port,
                        MODEL,
                        clients=1,
                        requests=PROMPTS,
                        max_tokens=1,
                        content_file=prompt,
                    ) as prompts,
                ):
                    found, asked = outcome(stream), outcome(prompts)
                if found["errors"] or asked["errors"]:
                    raise RuntimeError((found["errors"] + asked["errors"])[0])
                if turn:  # the first warms up
                    longest_ms[name].append(1e3 * found["gaps_s"]["max"])
    same, control = min(longest_ms["same"]), min(longest_ms["other"])
    note = (
        f"longest gap {same:.1f} ms, {control:.1f} ms with the prompts at another proxy; a token "
        f"each {STEP_MS:g} ms"
    )
    return [
        Figure(
            name="stall by a 100k-token prompt",
            value=max(same - control, 0.0),
            unit="ms",
            most=MOST_STALL_MS,
            note=note,
        )
    ]
