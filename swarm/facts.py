"""What is known of a base model without loading its weights: one record, which the trainer makes and everybody reads."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Module:
    """A module of the language model that holds a matrix."""

    name: str
    """As `named_modules()` of transformers has it: model.layers.0.self_attn.q_proj."""
    kind: Literal["linear", "conv1d", "embedding"]
    """conv1d: GPT-2's linear layer, whose matrix is stored as (inputs, outputs)."""
    inputs: int
    """Rows of the table for an embedding."""
    outputs: int
    quantised: bool = True
    """bitsandbytes replaces it by a 4-bit layer where the base is loaded in NF4."""
    adaptable: bool = True
    """PEFT can wrap it: it returns one tensor, and its name stands for nothing else."""
    called: bool = True
    """False: its family multiplies with the matrix itself, so that neither an adapter nor 4 bits can stand in for it."""

    @property
    def elements(self) -> int:
        return self.inputs * self.outputs


@dataclass(frozen=True, slots=True)
class BaseFacts:
    """A base model.  Sizes are those of its language model, `parameters` and `bytes` of all that is loaded."""

    hidden_size: int
    layers: int
    heads: int
    head_size: int
    intermediate_size: int
    embedding_rows: int
    """Tokens that it knows; its tokenizer may have fewer."""
    parameters: int
    modules: tuple[Module, ...]
    """In the model's own order; the head is one of them."""
    tensors: tuple[tuple[str, tuple[int, ...]], ...] = ()
    """All weights of its language model by name, each once, and what is stored beside them; of an encoder without its heads."""
    buffers: tuple[str, ...] = ()
    """Names of what no optimizer steps, such as the balance of experts."""
    experts_parameters: int = 0
    """Those of all experts of a mixture, which no adapter kind reaches: they are one tensor of three dimensions."""
    head: str = "lm_head"
    """Name of the module that makes logits."""
    head_tensors: tuple[tuple[str, tuple[int, ...]], ...] = ()
    """Of that module, and of an encoder all that it finds masked tokens with, by name."""
    headless: bool = False
    """Its files lack that module, as those of sentence encoders do."""
    aliases: tuple[str, ...] = ()
    """Second names of tensors that two modules share."""
    tied: bool = False
    """The head's matrix is the embedding's."""
    context_tokens: int | None = None
    """Positions that it has; None where nothing bounds them."""
    attention: Literal["sdpa", "eager"] | None = None
    """How its family can compute attention: with torch's fused kernels, or eagerly alone; None for a model without attention."""
    quantisation: str | None = None
    """How its stored weights are quantised: `nf4`, `gptq`, ...; None: not at all."""

    # of its folder
    name: str = ""
    folder: str | None = None
    """None where the weights are still on the hub."""
    files: tuple[str, ...] = ()
    """The files of weights that transformers loads; others may lie beside them."""
    bytes: int = 0
    """Their size."""
    chat_template: bool = False
    family: str = ""
    """As transformers names it: `model_type` of the language model's config."""

    # of encoders, and of models that say what a text is
    reads_both_ways: bool = False
    """An encoder: what stands behind a place is seen there too."""
    classifier: tuple[tuple[str, tuple[int, ...]], ...] = ()
    """Tensors of the head that transformers puts on it to tell labels, by name; a size of 1 is the number of labels.  Empty: its family has none."""
    labels: tuple[str, ...] = ()
    """What its own head tells, where it has such a one."""

    @property
    def linears(self) -> tuple[Module, ...]:
        """What `all-linear` means: every linear layer but the head."""
        return tuple(m for m in self.modules if m.kind != "embedding" and m.name != self.head and m.adaptable)
