"""Publishes validated adapters under the paths where people find them: checked by token and hash, staged, synced, exchanged.

The process that holds the log's lock calls this and appends the event that it yields; if that fails, the files are put back, so that
log and files agree.  Both fences are here: weights of an older train lease than the published ones are refused, and so are weights
other than those that were validated.  What is published, and when, is decided elsewhere.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any

from swarm.artifacts.lineage import FILE, lineage
from swarm.artifacts.versions import next_version
from swarm.errors import UserError
from swarm.events import Adapter, Promote
from swarm.files import exchange, sync_file, sync_folder, write_whole
from swarm.model_card import CARD, card, public_name
from swarm.plainfiles import LOG_BYTES, NotPlain, make_folder, read_file, read_text, remove_tree, rename
from swarm.rundir import RunFolder
from swarm.settings import RunSettings, StreamSettings
from swarm.state import State
from swarm.weights import (
    ADAPTER,
    ADAPTER_CONFIG,
    MANIFEST,
    MODELS,
    OF_MODELS,
    PROMPT,
    TOKENIZER,
    adapter_files,
    adapter_sha256,
    copy_file,
    sha256_of,
)


class PublishError(Exception):
    """The weights are not those that were validated, or weights of a newer lease are published."""


@contextmanager
def adapter(folder: RunFolder, state: State, name: str, settings: StreamSettings) -> Iterator[Adapter]:
    """The validated checkpoint becomes the stream's adapter while the event is appended, and remains so if that succeeds.

    Raises PublishError, OSError.
    """
    stream = state.streams[name]
    assert stream.verdict and stream.candidate
    token, sha256 = stream.candidate.tok, stream.verdict.sha256
    if stream.adapter and token < stream.adapter.tok:
        raise PublishError(f"token {token} is older than {stream.adapter.tok}, under which the adapter was published")
    target = folder.stream(name) / "adapter"
    # approvals and promotions so far were about other weights
    new = {"token": token, "sha256": sha256, "approved": [], "approvals": [], "promoted": None}
    document = {**lineage(folder.name, state, name, settings), **new}
    with _placed(_source(folder, stream.verdict.path), target, sha256, document, _beside(folder, state, name)):
        yield Adapter(ref=name, tok=token, path=str(target.relative_to(folder.path)), sha256=sha256)


@contextmanager
def promotion(folder: RunFolder, state: State, wished: Promote, run: RunSettings, author: str) -> Iterator[Promote]:
    """The stream's adapter becomes the run's winner while the event is appended, and remains so if that succeeds.

    Raises PublishError, OSError.
    """
    published = state.streams[wished.ref].adapter
    assert published
    with next_version(folder.path.parent, run.name) as version:
        facts = {"path": folder.promoted.name, "sha256": published.sha256, "tok": published.tok, "version": version}
        why = {"by": author, "why": wished.why, "forced": bool(wished.force), "version": version}
        document = {**lineage(folder.name, state, wished.ref, run.streams[wished.ref]), "promoted": why}
        beside = _beside(folder, state, wished.ref)
        source = _source(folder, published.path)
        with _placed(source, folder.promoted, published.sha256, document, beside):
            yield wished.model_copy(update=facts)


def intact(folder: RunFolder, path: str, sha256: str) -> str:
    """The state of an adapter's files: ok, changed or missing."""
    try:
        return "ok" if adapter_sha256(folder.path / path) == sha256 else "changed"
    except OSError:
        return "missing"


def _source(folder: RunFolder, path: str) -> Path:
    try:
        return folder.inside(path)
    except UserError as error:
        raise PublishError(str(error)) from error


def _beside(folder: RunFolder, state: State, name: str) -> dict[str, bytes]:
    """`prompt.json` and the tokenizer's files of the stream's prepared rows, as their manifest seals them; an older version has none."""
    prepared = state.streams[name].prepared
    return _of_rows(folder, prepared.path, prepared.sha256) if prepared else {}


def _of_rows(folder: RunFolder, path: str, sha256: str | None) -> dict[str, bytes]:
    """By name; of two models by `encoder/NAME` and `decoder/NAME`."""
    if not (place := _source(folder, path) / MANIFEST).is_file():
        return {}
    manifest = read_file(place, LOG_BYTES)
    if hashlib.sha256(manifest).hexdigest() != sha256:
        raise PublishError(f"{path}: {MANIFEST} is not the one that was prepared")
    try:
        document = json.loads(manifest)
        sealed = {str(name): str(facts["sha256"]) for name, facts in document["files"].items()}
        models = {model: (str(of["path"]), str(of["sha256"])) for model, of in document.get(OF_MODELS, {}).items()}
    except (ValueError, TypeError, LookupError, AttributeError) as error:
        raise PublishError(f"{path}: {MANIFEST} cannot be read") from error
    wanted = [name for name in sealed if name == PROMPT or PurePosixPath(name).parent.name == TOKENIZER]
    found = {PurePosixPath(name).name: _as_sealed(place.parent / name, sealed[name], path) for name in wanted}
    for model in MODELS:
        if model in models:
            found |= {f"{model}/{name}": text for name, text in _of_rows(folder, *models[model]).items()}
    return found


def _as_sealed(path: Path, sha256: str, prepared: str) -> bytes:
    try:
        text = read_file(path, LOG_BYTES)
    except (OSError, NotPlain) as error:
        raise PublishError(f"{prepared}: {path.name} is not the one that was prepared") from error
    if hashlib.sha256(text).hexdigest() != sha256:
        raise PublishError(f"{prepared}: {path.name} is not the one that was prepared")
    return text


@contextmanager
def _placed(
    source: Path, target: Path, sha256: str, document: dict[str, Any], beside: dict[str, bytes]
) -> Iterator[None]:
    """`target` becomes an adapter folder with the files of `source`, what lies `beside` them, a card and `lineage.json`; if anything fails it is put back."""
    _fence(target, document)
    staged = target.with_name(f".{target.name}.staged")
    _stage(source, staged, sha256, document, beside)
    had = target.exists()
    old = _swap(staged, target)
    try:
        yield
    except BaseException:
        if had:
            remove_tree(_swap(old, target))
        else:
            remove_tree(target)
        raise
    remove_tree(old, ignore_errors=True)


def _stage(source: Path, staged: Path, sha256: str, document: dict[str, Any], beside: dict[str, bytes]) -> None:
    remove_tree(staged, ignore_errors=True)
    make_folder(staged)
    for name in adapter_files(source):
        try:
            copy_file(source / name, staged / name)
        except FileNotFoundError as error:
            raise PublishError(f"{source.name}: {name} is missing") from error
        except NotPlain as error:
            raise PublishError(str(error)) from error
    if adapter_sha256(staged) != sha256:
        remove_tree(staged)
        raise PublishError(f"{source.name}: the weights are not those that were validated")
    for name, text in beside.items():
        (staged / name).write_bytes(text)
    for name in adapter_files(staged):
        if name.endswith(ADAPTER_CONFIG):
            _write_card((staged / name).parent, document)
    write_whole(staged / FILE, json.dumps(_without_places(document), indent=2) + "\n")
    for path in [path for path in staged.rglob("*") if path.is_file()]:
        sync_file(path)
    sync_folder(staged)


def _write_card(folder: Path, document: dict[str, Any]) -> None:
    """Of one model: its settings are the stream's, or those that the stream has for it."""
    settings = document["settings"] or {}
    own = {**document, "settings": (settings.get(OF_MODELS) or {}).get(folder.name) or document["settings"]}
    config = json.loads(read_text(folder / ADAPTER_CONFIG))
    base = public_name(str(config.get("base_model_name_or_path") or document["base_model"] or "its base"))
    (folder / CARD).write_text(card(document["stream"], base, own, sha256_of(folder / ADAPTER)), encoding="utf-8")


def _without_places(value: Any) -> Any:
    """The document without paths of this machine: files go by their names.  A base's folder stays, since whoever loads the adapter needs it."""
    match value:
        case dict():
            return {key: below if key == "base_model" else _without_places(below) for key, below in value.items()}
        case list():
            return [_without_places(below) for below in value]
        case str() if value.startswith("/"):
            return PurePosixPath(value).name
        case _:
            return value


def _fence(target: Path, document: dict[str, Any]) -> None:
    """Refuses a token older than the one recorded beside the weights: a fence at the resource itself."""
    try:
        recorded = json.loads(read_text(target / FILE))
        stream, token = recorded["stream"], int(recorded["token"])
    except (OSError, ValueError, TypeError, LookupError, RecursionError):
        return  # nothing there yet, or edited by hand: the log's own token was compared before
    if stream == document["stream"] and token > document["token"]:
        raise PublishError(f"{target.name} holds weights of token {token}, newer than {document['token']}")


def _swap(new: Path, target: Path) -> Path:
    """Replaces `target` by `new` and returns the path of the old folder; at any moment `target` is one of them, whole."""
    old = new.with_name(f"{new.name}.old")
    remove_tree(old, ignore_errors=True)  # this program created it
    if target.exists() and exchange(new, target):
        old = new
    else:
        if target.exists():
            rename(target, old)
        rename(new, target)
    sync_folder(target.parent)
    return old
