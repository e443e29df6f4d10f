"""Where a control adapter stands: the modules of a decoder whose outputs it changes; without torch.

`mlp`    the output of a layer's MLP as it leaves it: before the norm behind it (Gemma 2 and 3, OLMo 2) or what it is multiplied by
         (Granite); of a mixture the sum of its experts
`block`  what a whole layer adds to the residual stream: its output less its input
"""

from __future__ import annotations

import re
from typing import Literal

from swarm.errors import UserError
from swarm.facts import BaseFacts
from trainer.targets import layers

Site = Literal["mlp", "block"]
FAMILIES = (
    "llama", "mistral", "mixtral", "qwen2", "qwen3", "qwen3_moe", "phi3", "gemma2", "gemma3_text", "cohere", "cohere2",
    "granite", "olmo", "olmo2", "smollm3", "stablelm",
)  # fmt: skip
"""Those of which it is known (and tested) that layer N is `...layers.N`, takes and returns the residual stream, and has its MLP in `mlp`."""
CHILD = "control"
"""The adapter's name within the module that it stands on."""
LAYER = re.compile(r"(?P<layers>.*\blayers)\.\d+\.")


def sites(base: BaseFacts, site: Site, chosen: int | str | list[int | str] | None) -> list[str]:
    """The names of the modules, in the model's order; `chosen` as `layers_to_transform`.  Raises UserError for other families."""
    refuse_unknown(base, "adapter", ", or `adapter: lora`")
    prefix = next(match["layers"] for module in base.linears if (match := LAYER.match(module.name)))
    numbers = range(base.layers) if chosen is None else sorted(layers(chosen, base.layers))
    return [f"{prefix}.{number}{'.mlp' if site == 'mlp' else ''}" for number in numbers]


def refuse_unknown(base: BaseFacts, where: str, otherwise: str = "") -> None:
    """Raises UserError for families of which it is not known where their layers add to the residual stream."""
    if base.family not in FAMILIES:
        what = f"it is not known where the layers of {base.family or 'this base'} add to the residual stream"
        raise UserError(where, what, f"take a base of {', '.join(FAMILIES)}{otherwise}")
