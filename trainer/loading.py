"""Loads bases, tokenizers and adapters; `bases` finds their files, and the adapter's kind decides what it consists of."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from swarm import kinds
from swarm.errors import UserError
from swarm.settings import StreamSettings
from swarm.weights import ADAPTER_CONFIG
from trainer.device import has_bfloat16
from trainer.inspection import facts_of_model
from trainer.place import Place

if TYPE_CHECKING:
    import torch
    from peft import PeftModel
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


PAIR, EXPERTS = ".lora_", ".experts."
"""What names of tensors have in them: those of a pair, and those of a mixture's layers."""
WHOLE = ("LORA", "CONTROL")
"""PEFT's types of adapters all of whose tensors are pairs."""
OF_LABELS = "SEQ_CLS"
"""PEFT's name of what an adapter that tells labels is for."""


def load_tokenizer(base_folder: Path, *, trust_remote_code: bool = False) -> PreTrainedTokenizerBase:
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(str(base_folder), trust_remote_code=trust_remote_code)
    except Exception as error:  # each of the libraries that read the older forms has its own
        what = f"the tokenizer in {base_folder} cannot be read ({' '.join(str(error).split())[:200]})"
        raise UserError("base_model", what, "save the tokenizer again, or use another base") from error
    return cast("PreTrainedTokenizerBase", tokenizer)


def load_base(base_folder: Path, settings: StreamSettings, place: Place) -> PreTrainedModel:
    """The frozen base as the stream's adapter expects it: in full precision, or in NF4 for `qlora`."""
    import torch
    from transformers import AutoConfig
    from transformers.utils import logging as transformers_logging

    from trainer.determinism import allow_one_order

    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]  # a worker's output is a file
    if place.on_cuda:
        allow_one_order()
    dtype, kind = compute_dtype(settings, place), kinds.adapter(settings.adapter)
    objective = kinds.method(settings.method).objective(settings)
    try:
        config = AutoConfig.from_pretrained(str(base_folder), trust_remote_code=settings.trust_remote_code)
        quantisation = kind.quantisation_config(dtype, settings)
        if quantisation is not None and (whole := objective.kept_whole(config)):
            quantisation.llm_int8_skip_modules = whole
        model, loaded = objective.model_class(config).from_pretrained(
            str(base_folder),
            dtype=dtype,
            output_loading_info=True,
            **objective.arguments(config),
            quantization_config=quantisation,
            device_map={"": place.torch_device},
            attn_implementation=None if settings.attn_implementation == "auto" else settings.attn_implementation,
            use_safetensors=True,  # pickled weights can hold code
            trust_remote_code=settings.trust_remote_code,
        )
    except torch.OutOfMemoryError:
        raise
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        what = f"{settings.base_model} cannot be loaded ({type(error).__name__}: {' '.join(str(error).split())[:200]})"
        raise UserError(
            "base_model", what, "check it with `python -m trainer.bases --check`, or use another base"
        ) from error
    refuse_other_files(settings.base_model, model, loaded, lambda one: objective.is_made_here(model, one))
    objective.after_loading(model, loaded["missing_keys"])
    kind.after_loading(model, on_gpu=place.on_gpu)
    return cast("PreTrainedModel", model)


def refuse_other_files(
    name: str, model: PreTrainedModel, loaded: Mapping[str, Any], may_lack: Callable[[str], bool]
) -> None:
    """Raises UserError where a base's files are not those of its config.

    transformers warns alone: it draws what is missing at random, others in each process, and leaves layers beyond the config's number out.
    `loaded` is what `from_pretrained(output_loading_info=True)` returns.
    """
    if lacking := sorted(one for one in loaded["missing_keys"] if not may_lack(one)):
        what = f"the files of {name} lack {len(lacking)} tensors of a {type(model).__name__}, first {lacking[0]}"
        raise UserError("base_model", what, "save the whole model with its head, or take another base")
    _refuse_layers_left_out(name, model, loaded["unexpected_keys"])


def _refuse_layers_left_out(name: str, model: PreTrainedModel, beyond: Iterable[str]) -> None:
    from torch.nn import ModuleList

    counts = {place: len(layers) for place, layers in model.named_modules() if isinstance(layers, ModuleList)}
    for tensor in sorted(beyond):
        for found in re.finditer(r"\.(\d+)\.", tensor):
            place = tensor[: found.start()]
            if int(found[1]) >= counts.get(place, math.inf):
                what = (
                    f"its config has {counts[place]} layers in {place}, the files of {name} have more, such as {tensor}"
                )
                raise UserError("base_model", what, "take the config.json that was saved with the weights")


def compute_dtype(settings: StreamSettings, place: Place) -> torch.dtype:
    """fp32 on a CPU; on a GPU fp16 if the settings say so, else bf16 if the GPU supports it and the settings do not forbid it."""
    import torch

    if place.on_gpu and settings.fp16:
        return torch.float16
    if not place.on_gpu or settings.bf16 is False:
        return torch.float32
    if not has_bfloat16(place):
        if settings.bf16 is True:
            name = torch.cuda.get_device_name(0) if place.on_cuda else "MPS of this macOS"
            raise UserError("bf16", f"{name} has no bfloat16", "set bf16: auto")
        return torch.float32
    return torch.bfloat16


def new_adapter(base: PreTrainedModel, settings: StreamSettings) -> PeftModel:
    """The base with a new, untrained adapter of the settings' kind."""
    return kinds.adapter(settings.adapter).attach(base, facts_of_model(base), settings)


def load_adapter(base: PreTrainedModel | PeftModel, folder: Path, name: str = "default") -> PeftModel:
    """The base with a trained adapter, or with one more, for inference only.  Raises UserError where it does not fit the base.

    PEFT would load an `adapter_model.bin` instead of a safetensors file, which can hold code (CVE-2025-32434).
    """
    import torch
    from peft import PeftModel

    from trainer.adapter_file import tensors_of

    stored = set(tensors_of(folder))
    config = _config_of(folder)
    _refuse_another_purpose(base, folder, config)
    for kind in kinds.installed("adapter").values():
        kind.known_to_peft()  # type: ignore[attr-defined]
    try:
        if isinstance(base, PeftModel):
            for kind in kinds.installed("adapter").values():
                kind.let_join(base, str(config.get("peft_type")))  # type: ignore[attr-defined]
            base.load_adapter(str(folder), adapter_name=name, is_trainable=False)
            made = base
        else:
            made = PeftModel.from_pretrained(base, str(folder), adapter_name=name, is_trainable=False)
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # a torn file, a config of another version, layers that the base does not have
        if "size mismatch" in str(error):
            what = "was trained on a base whose layers are of other sizes"
            raise UserError(str(folder), what, "name the base it was trained on") from error
        what = f"does not fit its base ({type(error).__name__}: {' '.join(str(error).split())[:200]})"
        raise UserError(str(folder), what, "name the base that it was trained on, or save the adapter again") from error
    _refuse_a_part(made, folder, name, stored)
    return made.eval()


def _refuse_a_part(model: PeftModel, folder: Path, name: str, tensors: set[str]) -> None:
    """Raises UserError where the base has no place for some of an adapter's tensors, or the file lacks some: PEFT goes on with the rest."""
    from peft import get_peft_model_state_dict

    config, stored = model.peft_config[name], {one for one in tensors if PAIR in one}
    if config.peft_type not in WHOLE or any(EXPERTS in one for one in stored):  # transformers renames those of mixtures
        return
    made = {
        one for one in get_peft_model_state_dict(model, adapter_name=name, save_embedding_layers=False) if PAIR in one
    }
    if odd := sorted(stored ^ made):
        what = f"{odd[0]} is in its file alone" if odd[0] in stored else f"its file lacks {odd[0]}"
        more = f" (and {len(odd) - 1} more)" if len(odd) > 1 else ""
        raise UserError(str(folder), f"does not fit its base: {what}{more}", "name the base that it was trained on")


def _config_of(folder: Path) -> dict[str, object]:
    try:
        found = json.loads((folder / ADAPTER_CONFIG).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        found = None
    if not isinstance(found, dict):
        raise UserError(str(folder), f"has no {ADAPTER_CONFIG} that can be read", "save the adapter again")
    return found


def _refuse_another_purpose(base: PreTrainedModel | PeftModel, folder: Path, config: dict[str, object]) -> None:
    """PEFT would leave the head of a model of labels out."""
    from peft import PeftModel

    model = base.get_base_model() if isinstance(base, PeftModel) else base
    if config.get("task_type") == OF_LABELS and not type(model).__name__.endswith("ForSequenceClassification"):
        what = "its adapter tells labels (`method: classify`), and words are asked of it"
        raise UserError(str(folder), what, "load it with transformers and peft: docs/methods.md")
