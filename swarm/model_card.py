"""A model card from what a run's log states: data, method and figures beside the base's; what is not known is not claimed.

Paths of this machine and rows of the data do not stand in it.
"""

from __future__ import annotations

import json
from pathlib import Path, PurePath
from typing import Any

from swarm import figures, kinds

CARD = "README.md"
MADE = "<!-- Made of the run's log.  A card with this line is made anew when the adapter is pushed; take the line out to keep your own. -->"
METHOD = (
    "adapter", "lora_r", "lora_alpha", "lora_dropout", "lora_target_modules", "use_dora", "use_rslora", "method", "optimizer",
    "learning_rate", "lr_scheduler", "warmup_ratio", "micro_batch_size", "gradient_accumulation_steps", "sequence_len",
    "train_on_inputs", "seed",
)  # fmt: skip
"""Settings that somebody would need to train the same again."""
PURPOSES = {
    "CAUSAL_LM": ("text-generation", "AutoModelForCausalLM"), "SEQ_CLS": ("text-classification", "AutoModelForSequenceClassification"),
    "FEATURE_EXTRACTION": ("feature-extraction", "AutoModelForMaskedLM"),
}  # fmt: skip
"""By PEFT's name of what an adapter is for."""


def card(name: str, base: str, lineage: dict[str, Any], sha256: str) -> str:
    """The text of README.md; `base` as the adapter's config names it."""
    about = _front(base, lineage)
    parts = [
        about, MADE, f"# {name}", _what(base, lineage), _data(lineage), _method(lineage), _figures(lineage), _use(base, lineage), _rights(base),
        _made(lineage, sha256),
    ]  # fmt: skip
    return "\n\n".join(part for part in parts if part) + "\n"


def _front(base: str, lineage: dict[str, Any]) -> str:
    """YAML that hubs read.  A licence is the author's to state: it is left out."""
    kind = str((lineage.get("settings") or {}).get("adapter") or "lora")
    on_hub = [f"base_model: {json.dumps(base)}", "base_model_relation: adapter"] if _is_hub_name(base) else []
    tags = ["tags:", *(f"- {tag}" for tag in dict.fromkeys(("peft", "lora", kind, "toonswarm")))]
    pipeline = [f"pipeline_tag: {_of_purpose(lineage)[0]}"]
    return "\n".join(["---", "library_name: peft", *pipeline, *on_hub, *tags, "---"])


def _of_purpose(lineage: dict[str, Any]) -> tuple[str, str, str]:
    """The hub's name of what it is for, the class of transformers that makes its base, and the arguments of that."""
    settings = lineage.get("settings") or {}
    kind = kinds.installed("method").get(settings.get("method") or "sft")
    task, names = PURPOSES.get(kind.peft_task if isinstance(kind, kinds.Method) else "", PURPOSES["CAUSAL_LM"])
    labels = f", num_labels={len(settings['labels'])}" if settings.get("labels") else ""
    return task, names, labels


def _is_hub_name(base: str) -> bool:
    return base.count("/") == 1 and not base.startswith(("/", ".", "~"))


def _what(base: str, lineage: dict[str, Any]) -> str:
    known = "" if lineage else "  Of its training nothing is known here: no log of a run came with it."
    began = (lineage.get("trained") or {}).get("start_sha256")
    holds = (
        f"  It was trained on top of another adapter (SHA-256 `{began}`) and holds it: load it alone." if began else ""
    )
    return f"An adapter (PEFT) for `{base}`.{known}{holds}"


def _data(lineage: dict[str, Any]) -> str:
    prepared, settings = lineage.get("prepared") or {}, lineage.get("settings") or {}
    if not prepared:
        return ""
    sources = ", ".join(
        f"`{PurePath(str(data['path'])).name}` ({data['type']})" for data in settings.get("datasets", [])
    )
    counts = f"{prepared['rows']} training rows and {prepared['held_out']} held-out rows, {prepared['tokens']} tokens"
    counts += f" of which the loss counts {prepared['supervised']}"
    return f"## Data\n\n{counts}, from {sources}.  Hash of the prepared rows: `{str(prepared['sha256'])[:16]}`."


def _method(lineage: dict[str, Any]) -> str:
    settings, trained = lineage.get("settings") or {}, lineage.get("trained") or {}
    if not settings:
        return ""
    rows = [f"| {key} | {_value(settings[key])} |" for key in METHOD if key in settings]
    steps = f"{trained['step']} optimizer steps, {trained['trainable']} trained parameters." if trained else ""
    return "\n".join(["## Method", "", steps, "", "| setting | value |", "|---|---|", *rows])


def _value(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value).replace("|", "\\|")


def _figures(lineage: dict[str, Any]) -> str:
    """Measured on the held-out rows, of adapter and bare base alike."""
    measured = {**(lineage.get("verdict") or {}), **(lineage.get("score") or {})}
    names = [name for name in measured if f"{figures.BASE}{name}" in measured]
    if not names:
        return ""
    rows = [
        f"| {figures.of(name).label} | {_text(name, measured, '')} | {_text(name, measured, figures.BASE)} |"
        for name in names
    ]
    held_out = (lineage.get("prepared") or {}).get("held_out")
    head = f"## Figures\n\nOn {held_out} held-out rows, adapter and bare base alike.\n"
    asked = (lineage.get("settings") or {}).get("eval_rows")
    few = f"\nAnswers were generated for at most {asked} of them.\n" if asked else ""
    return "\n".join([head + few, "| figure | adapter | base |", "|---|---|---|", *rows])


def _text(name: str, measured: dict[str, Any], prefix: str) -> str:
    value = measured.get(f"{prefix}{name}")
    return "-" if value is None else figures.of(name).text(value)


def _use(base: str, lineage: dict[str, Any]) -> str:
    _, kind, more = _of_purpose(lineage)
    return f"""## Use

```python
from peft import PeftModel
from transformers import {kind}, AutoTokenizer

base = {kind}.from_pretrained({json.dumps(base)}{more})
model = PeftModel.from_pretrained(base, "path or name of this adapter")
tokenizer = AutoTokenizer.from_pretrained("path or name of this adapter")  # with the chat template of the training
```"""


def _rights(base: str) -> str:
    return f"""## Licence and privacy

The licence of `{base}` holds for what is made of it; the licence of the training data and the adapter's own are for its author to state.
A model can repeat rows that it was trained on: publish this adapter only if those rows may be read by whoever gets it."""


def _made(lineage: dict[str, Any], sha256: str) -> str:
    run = f" in the run `{lineage['run']}`, stream `{lineage['stream']}`" if lineage.get("run") else ""
    trained = lineage.get("trained") or {}
    base = f"  SHA-256 of the base's weights: `{trained['base_sha256']}`." if trained.get("base_sha256") else ""
    versions = f"  Versions: {trained['versions']}." if trained.get("versions") else ""
    return f"Made with toonswarm{run}.{base}{versions}  SHA-256 of `adapter_model.safetensors`: `{sha256}`."


def kept_card(folder: Path) -> str | None:
    """The card that its author wrote."""
    path = folder / CARD
    text = path.read_text(encoding="utf-8") if path.is_file() else MADE
    return None if MADE in text else text


def public_name(base: str) -> str:
    """A base in a folder goes by the folder's name: paths of this machine stay here."""
    return Path(base).name if Path(base).expanduser().is_dir() else base
