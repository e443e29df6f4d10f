"""Checks that a base can be trained on with a part's settings; used by `check` before anything starts, and by workers; pure."""

from __future__ import annotations

from collections.abc import Iterator

from swarm import kinds
from swarm.errors import UserError
from swarm.facts import BaseFacts
from swarm.settings import Part, StreamSettings

JUDGED_TOKENS, JUDGED_LOGITS_BYTES = 4096, 512 << 20
"""Limits of one batch of held-out rows in validator and evaluator, on a GPU: with 150 k words in the vocabulary, logits take the most memory."""

PASS_TOKENS = 16384
"""Bound on the tokens that the shared engine computes at once, pads included; a single row may be longer."""
CPU_PASS_TOKENS = 1024
"""The same of one pass on a CPU: a larger one is no faster there (training within 4 %, judging 4,096 tokens at once takes 1.2x the time;
on the embedded base), and takes more memory."""
LOGITS_BYTES = 256 << 20
"""Bound on a chunk's logits in fp32 on the shared engine."""

Unfit = tuple[str, str, str]
"""The setting, what is wrong with it, and the fix."""


def full_pass_tokens(*, on_gpu: bool) -> int:
    """Of one pass of the shared engine, at most."""
    return PASS_TOKENS if on_gpu else CPU_PASS_TOKENS


def judged_tokens(*, on_gpu: bool) -> int:
    """Of one batch of held-out rows, at most."""
    return JUDGED_TOKENS if on_gpu else CPU_PASS_TOKENS


def unfit(part: Part, base: BaseFacts) -> Iterator[Unfit]:
    """Every reason why its training would fail."""
    kind = kinds.adapter(part.adapter)
    if isinstance(part, StreamSettings) and (why := kinds.method(part.method).unfit(base, part)):
        yield why.key, why.what, why.fix
        return
    if base.context_tokens is not None and part.sequence_len > base.context_tokens:
        yield "sequence_len", f"{part.sequence_len}, and the base reads {base.context_tokens} tokens", "lower it"
    held = (kind.held(part) or "").partition(" ")[0]
    if base.quantisation is not None and base.quantisation != held:
        yield _other_quantisation(base.quantisation)
    elif kind.quantisation is not None and not any(module.quantised for module in base.modules):
        what = f"{part.adapter} would store no part of this base in 4 bits: it has no plain linear layer"
        yield "adapter", what, "write `adapter: lora`"
    elif kind.quantisation is not None and (
        raw := next((m for m in base.modules if m.quantised and not m.called), None)
    ):
        what = f"{part.adapter} would hold {raw.name} in 4 bits, and this family multiplies with that matrix itself"
        yield "adapter", what, "write `adapter: lora`"
    if part.attn_implementation == "sdpa" and base.attention == "eager":
        what = "sdpa, but torch's fused kernels do not support this base's attention"
        yield "attn_implementation", what, "write `attn_implementation: auto`, which chooses eager for this base"
    try:
        if not kind.tensors(base, part):
            yield "adapter", f"{part.adapter} finds no module to adapt in this base", "use another base"
    except UserError as error:
        yield error.where, error.what, error.fix


def _other_quantisation(stored: str) -> Unfit:
    other = [kind.name for kind in kinds.installed("adapter").values() if kind.quantisation == stored]  # type: ignore[attr-defined]
    if other:
        return "adapter", f"the base is stored in 4 bits ({stored})", f"write `adapter: {other[-1]}`"
    fix = "use the base in full precision; `adapter: qlora` quantises it when it is loaded"
    return "base_model", f"is stored quantised ({stored}), and no adapter here can be trained on that", fix


def refuse_unfit(part: Part, base: BaseFacts) -> None:
    """Raises UserError with the first reason of `unfit`."""
    for setting, what, fix in unfit(part, base):
        raise UserError(setting, what, fix)
