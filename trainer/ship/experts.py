"""A layer's experts: in memory one tensor (experts, outputs, inputs), which PEFT calls a parameter; in a base's files a matrix for each of them.

PEFT has A (experts x r, inputs) and B (outputs, r x experts), the experts innermost in B (peft.tuners.lora.layer.ParamWrapper).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import count

from torch import Tensor

from swarm.errors import UserError

NESTED = ".base_layer"
"""In the name of a module two of whose parameters are adapted."""
DOWN = re.compile(r"(?P<layer>.*\blayers\.\d+)\.mlp\.experts\.down_proj")
IN_FILES = ("{layer}.block_sparse_moe.experts.{number}.w2.weight", "{layer}.mlp.experts.{number}.down_proj.weight")
"""An expert's down projection in a base's files: Mixtral, and Qwen's mixtures."""
ONE = re.compile(r"(?P<layer>.*\blayers\.\d+)\.(block_sparse_moe\.experts\.(\d+)\.w2|mlp\.experts\.(\d+)\.down_proj)")


def parameter_in(module: str, targets: Sequence[str], where: str) -> str | None:
    """The parameter of a module that PEFT's `target_parameters` name; None for a plain layer.  Raises UserError for one with two."""
    inner = module.replace(NESTED, "")
    whole = {f"{inner}.{target.rpartition('.')[2]}" for target in targets}
    found = sorted(name for name in whole if any(f".{name}".endswith(f".{target}") for target in targets))
    if len(found) > 1 or (found and NESTED in module):
        what = f"adapts several parameters of {inner}, and its file does not say which pair is whose"
        raise UserError(where, what, "merge it with PEFT's merge_and_unload, which loads the whole model")
    return found[0] if found else None


def stacked(a: Tensor, b: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """PEFT's A and B as (experts, r, inputs) and (experts, outputs, r)."""
    return a.reshape(-1, rank, a.shape[1]), b.reshape(b.shape[0], rank, -1).permute(2, 0, 1)


def joined(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """The other way round."""
    return a.flatten(0, 1), b.permute(1, 2, 0).flatten(1)


def in_files(parameter: str, stored: set[str]) -> Iterator[tuple[str, str]]:
    """Its experts in a base whose files have them one by one: (`parameter.number`, name of the tensor)."""
    if (match := DOWN.fullmatch(parameter)) is None:
        return
    for shape in IN_FILES:
        for number in count():
            name = shape.format(layer=match["layer"], number=number)
            if (found := next((one for one in (name, name.partition(".")[2]) if one in stored), None)) is None:
                break
            yield f"{parameter}.{number}", found


def in_memory(module: str) -> tuple[str, int] | None:
    """Of one expert's matrix in files, without `.weight`: the parameter of all of them, and its number; None for anything else."""
    match = ONE.fullmatch(module)
    return (f"{match['layer']}.mlp.experts.down_proj", int(match[3] or match[4])) if match else None
