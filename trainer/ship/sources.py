"""The models that a command names: adapters in folders, and the one base that they share; nothing is loaded here."""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from swarm import kinds
from swarm.errors import UserError
from swarm.plainfiles import SMALL_BYTES
from swarm.weights import ADAPTER, ADAPTER_CONFIG, MODELS, OF_MODELS, PROJECTOR
from trainer import bases
from trainer.control.scaled import scaled

LINEAGE = "lineage.json"
"""Beside an adapter that a run has published: stream, base and settings (swarm/artifacts/lineage.py)."""
QUANTISED = "qlora"
"""An adapter kind whose base is held in NF4."""
DECODER, ENCODER = MODELS


@dataclass(frozen=True)
class Source:
    """An adapter that was named."""

    name: str
    """What users call it: its stream, or its folder's name."""
    folder: Path
    base: str
    """Empty where it is not on this machine."""
    named: str
    """What the adapter calls its base."""
    run: str = ""
    kind: str | None = None
    """The adapter kind that it was trained as; None for adapters of other programs."""
    encoder: Source | None = None
    """The other half, where it is the decoder of a published pair (`method: duo`)."""

    @property
    def is_tied(self) -> bool:
        """Its encoder puts vectors before its prompts."""
        return (self.folder / PROJECTOR).is_file()


@dataclass(frozen=True)
class Sources:
    base: str
    base_name: str
    adapters: tuple[Source, ...]
    quantised: bool
    """The base is loaded in NF4."""
    vectors: tuple[str, ...] = ()
    """Control vectors on all of them, FILE or FILE:SCALE."""
    controls: tuple[tuple[Source, float], ...] = ()
    """Control adapters on all of them, each with its scale."""

    @property
    def names(self) -> list[str]:
        """The bare base first, the encoders of pairs last."""
        return [self.base_name, *(source.name for source in self.adapters), *self.encoders]

    @property
    def encoders(self) -> dict[str, Source]:
        """Of the pairs; that of the pair `both` is named `both/encoder`."""
        return {f"{source.name}/{ENCODER}": source.encoder for source in self.adapters if source.encoder}


def sources_of(
    words: Sequence[str], base: str | None = None, *, quantised: bool | None = None, vectors: Sequence[str] = (),
    controls: Sequence[str] = (), pairs: bool = False,
) -> Sources:  # fmt: skip
    """`words`: [NAME=]FOLDER of an adapter, or with `pairs` of a pair, and at most one base; `controls`: FOLDER[:SCALE].  Raises UserError."""
    found = [(word, _source(word)) for word in words]
    steering = [_control(word) for word in controls]
    of_all = [source for source, _ in steering]
    named = [word for word, source in found if source is None]
    if len(named) + (base is not None) > 1:
        what = f"{named[-1]} is no adapter, and the base is {base or named[0]}"
        raise UserError(named[-1], what, "name folders with adapter_config.json and one base")
    adapters = _distinct([source for _, source in found if source])
    if not pairs:
        _refuse_pairs(adapters)
    chosen = next(iter(named), base) or _common_base([*adapters, *of_all])
    bases.folder_of(chosen)  # refuses what is not there, before anything is imported or loaded
    trained = [_is_quantised(source.kind) for source in (*adapters, *of_all)]
    in_nf4 = bool(trained) and all(trained) if quantised is None else quantised
    sources = Sources(chosen, Path(chosen).name, tuple(adapters), in_nf4, tuple(vectors), tuple(steering))
    _refuse_equal_names(sources)
    _note_other_precision(sources)
    return sources


def base_of(folders: Sequence[Path], base: str | None = None) -> str:
    """The base that adapters share: the one that was named, else the lineage's word for it, else their config's.  Raises UserError."""
    adapters = [adapter_in(folder) for folder in folders]
    return base or _common_base(adapters)


def adapter_in(folder: Path, name: str = "") -> Source:
    """The adapter in that folder, under a name or its own.  Raises UserError."""
    if (source := _source(str(folder))) is None:
        raise UserError(str(folder), "holds no adapter", f"name a folder with {ADAPTER_CONFIG}")
    _refuse_pairs([source])
    return replace(source, name=name or source.name)


def _control(word: str) -> tuple[Source, float]:
    """Of FOLDER[:SCALE]."""
    folder, scale = scaled(word, "--control-adapter")
    source = adapter_in(folder)
    if _json(folder / ADAPTER_CONFIG).get("peft_type") != "CONTROL":
        raise UserError(str(folder), "is no control adapter, and only those act beside others", "name it as a model")
    return source, scale


def _refuse_pairs(adapters: Sequence[Source]) -> None:
    for place in (source.folder.parent for source in adapters if source.encoder):
        raise UserError(str(place), "is a pair of adapters", f"name one: {place / DECODER} or {place / ENCODER}")


def _source(word: str) -> Source | None:
    """An adapter, or the decoder of a pair; None for what is neither."""
    name, path = ("", word) if Path(word).exists() or "=" not in word else word.split("=", 1)
    folder = Path(path).expanduser()
    if all((folder / model / ADAPTER_CONFIG).is_file() for model in MODELS):
        decoder, encoder = (_adapter(word, folder / model, "") for model in (DECODER, ENCODER))
        name = name or str(read_lineage(folder).get("stream") or folder.resolve().name)
        return replace(decoder, name=name, encoder=encoder)
    if (folder / PROJECTOR).is_file():
        what = "is tied to its encoder, without which it was not trained"
        raise UserError(word, what, f"name the pair, {folder.parent}, for what takes one: serve, ask, chat, compare")
    if (folder / ADAPTER_CONFIG).is_file():
        return _adapter(word, folder, name)
    if name:
        raise UserError(word, f"{path} holds no {ADAPTER_CONFIG}", "write NAME=FOLDER with an adapter's folder")
    return None


def _adapter(word: str, folder: Path, name: str) -> Source:
    if not (folder / ADAPTER).is_file():
        raise UserError(word, f"has no {ADAPTER}", "name the folder of an adapter; .bin and .pt files are not read")
    config, lineage = _json(folder / ADAPTER_CONFIG), stated(folder)
    named = _bases_named(config, lineage)
    settings = lineage.get("settings") or {}
    if not isinstance(settings, dict):
        raise UserError(str(folder / LINEAGE), "holds no settings", "put it back as it was")
    return Source(
        name or str(lineage.get("stream") or folder.resolve().name), folder,
        next(filter(_is_here, named), ""), next(iter(named), "(it names none)"),
        run=str(lineage.get("run") or ""), kind=settings.get("adapter"),
    )  # fmt: skip


def stated(folder: Path) -> dict[str, Any]:
    """The lineage of an adapter; of a half of a pair what the pair's says of it.  Empty for adapters of other programs.  Raises UserError."""
    lineage = read_lineage(folder)
    if lineage or folder.name not in MODELS:
        return lineage
    pair = read_lineage(folder.parent)
    settings = ((pair.get("settings") or {}).get(OF_MODELS) or {}).get(folder.name) or {}
    half = {"stream": f"{pair.get('stream')}/{folder.name}", "base_model": settings.get("base_model")}
    return {**pair, **half, "settings": settings} if settings else {}


def _bases_named(config: dict[str, Any], lineage: dict[str, Any]) -> list[str]:
    """An adapter that was moved names its base's folder of then in its config; the lineage has the user's own word for it."""
    return [str(name) for name in (lineage.get("base_model"), config.get("base_model_name_or_path")) if name]


def _is_here(base: str) -> bool:
    try:
        bases.folder_of(base)
    except UserError:
        return False
    return True


def _json(path: Path) -> dict[str, Any]:
    try:
        if path.stat().st_size > SMALL_BYTES:
            raise UserError(str(path), f"is larger than {SMALL_BYTES >> 20} MiB", "put it back as it was")
        read: Any = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(str(path), "cannot be read", "put it back as it was") from error
    if not isinstance(read, dict):
        raise UserError(str(path), "holds no object", "put it back as it was")
    return read


def read_lineage(folder: Path) -> dict[str, Any]:
    """What a run says of an adapter; empty for adapters of other programs.  Raises UserError."""
    return _json(folder / LINEAGE) if (folder / LINEAGE).is_file() else {}


def _distinct(adapters: list[Source]) -> list[Source]:
    """Streams of several runs may have one name: then the run's name stands before it."""
    times = Counter(source.name for source in adapters)
    return [
        replace(source, name=f"{source.run}/{source.name}") if times[source.name] > 1 and source.run else source
        for source in adapters
    ]


def _refuse_equal_names(sources: Sources) -> None:
    twice = [name for name, times in Counter(sources.names).items() if times > 1]
    if twice:
        raise UserError(twice[0], "names two models", "give one another name: NAME=FOLDER")


def _common_base(adapters: Sequence[Source]) -> str:
    if not adapters:
        raise UserError("ADAPTER", "no model is named", f"name an adapter's folder, or a base such as {bases.EMBEDDED}")
    for source in adapters:
        if not source.base:
            raise UserError(
                str(source.folder), f"its base {source.named} is not on this machine",
                "name a folder of it with --base; `python -m trainer.bases --fetch NAME` downloads one",
            )  # fmt: skip
    folders = {str(bases.folder_of(source.base)) for source in adapters}
    if len(folders) > 1:
        listed = ", ".join(f"{source.name} on {source.base}" for source in adapters)
        raise UserError("--base", f"the adapters have different bases ({listed})", "ask them apart, or give --base")
    return adapters[0].base


def _is_quantised(kind: str | None) -> bool:
    """Whether adapters of this kind are trained on a base in 4 bits."""
    found = kinds.installed("adapter").get(kind or "")
    return found is not None and found.quantisation is not None  # type: ignore[attr-defined]


def _note_other_precision(sources: Sources) -> None:
    """One base has one precision: who was trained on another answers a little differently, and is named."""
    all_of_them = (*sources.adapters, *(source for source, _ in sources.controls))
    others = [s.name for s in all_of_them if s.kind and _is_quantised(s.kind) != sources.quantised]
    if others:
        here, there = ("NF4", "full precision") if sources.quantised else ("full precision", "NF4")
        print(f"{', '.join(others)}: trained on the base in {there}; here it is in {here}", file=sys.stderr)


# ---- on the command line ---------------------------------------------------------------------------------------------


def add_models(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("models", nargs="+", metavar="MODEL", help="[NAME=]FOLDER of an adapter or a pair; one base")
    parser.add_argument("--base", help="the base; default: the one that the adapters name")
    parser.add_argument("--device", help="cpu, mps, or gpu0; default: a GPU where there is one")
    parser.add_argument("--4bit", dest="quantised", action=argparse.BooleanOptionalAction, help="the base in NF4")
    parser.add_argument("--trust-remote-code", action="store_true", help="run code that the base brings")
    parser.add_argument("--control-vector", action="append", default=[], metavar="FILE[:SCALE]", help="on all models")
    parser.add_argument(
        "--control-adapter", action="append", default=[], metavar="FOLDER[:SCALE]", help="on all models"
    )


def named_in(options: argparse.Namespace) -> Sources:
    """Those of `add_models`.  Raises UserError."""
    return sources_of(
        options.models, options.base, quantised=options.quantised, vectors=options.control_vector,
        controls=options.control_adapter, pairs=True,
    )  # fmt: skip
