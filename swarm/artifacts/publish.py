"""Publishes validated adapters under the paths where people find them: checked by token and hash, staged, synced, exchanged.

The process that holds the log's lock calls this and appends the event that it yields; if that fails, the files are put back, so that
log and files agree.  Both fences are here: weights of an older train lease than the published ones are refused, and so are weights
other than those that were validated.  What is published, and when, is decided elsewhere.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from swarm.artifacts.lineage import FILE, lineage
from swarm.errors import UserError
from swarm.events import Adapter, Promote
from swarm.files import exchange, sync_file, sync_folder, write_whole
from swarm.plainfiles import LOG_BYTES, NotPlain, make_folder, opener, read_file, read_text, remove_tree, rename
from swarm.rundir import RunFolder
from swarm.settings import StreamSettings
from swarm.state import State
from swarm.weights import ADAPTER_FILES, MANIFEST, PROMPT, adapter_sha256


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
    with _placed(_source(folder, stream.verdict.path), target, sha256, document, _prompt(folder, state, name)):
        yield Adapter(ref=name, tok=token, path=str(target.relative_to(folder.path)), sha256=sha256)


@contextmanager
def promotion(
    folder: RunFolder, state: State, wished: Promote, settings: StreamSettings, author: str
) -> Iterator[Promote]:
    """The stream's adapter becomes the run's winner while the event is appended, and remains so if that succeeds.

    Raises PublishError, OSError.
    """
    published = state.streams[wished.ref].adapter
    assert published
    facts = {"path": folder.promoted.name, "sha256": published.sha256, "tok": published.tok}
    why = {"by": author, "why": wished.why, "forced": bool(wished.force)}
    document = {**lineage(folder.name, state, wished.ref, settings), "promoted": why}
    prompt = _prompt(folder, state, wished.ref)
    with _placed(_source(folder, published.path), folder.promoted, published.sha256, document, prompt):
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


def _prompt(folder: RunFolder, state: State, name: str) -> bytes | None:
    """`prompt.json` of the stream's prepared rows, as their manifest seals it; None: an older version prepared them."""
    prepared = state.streams[name].prepared
    place = _source(folder, prepared.path) if prepared else folder.path
    if not prepared or not (place / PROMPT).is_file():
        return None
    text, manifest = read_file(place / PROMPT), read_file(place / MANIFEST, LOG_BYTES)
    try:
        sealed = json.loads(manifest)["files"][PROMPT]["sha256"]
    except (ValueError, TypeError, LookupError):
        sealed = None
    if hashlib.sha256(manifest).hexdigest() != prepared.sha256 or hashlib.sha256(text).hexdigest() != sealed:
        raise PublishError(f"{prepared.path}: {PROMPT} is not the one that was prepared")
    return text


@contextmanager
def _placed(source: Path, target: Path, sha256: str, document: dict[str, Any], prompt: bytes | None) -> Iterator[None]:
    """`target` becomes an adapter folder with the files of `source`, `prompt.json` and `lineage.json`; if anything fails it is put back."""
    _fence(target, document)
    staged = target.with_name(f".{target.name}.staged")
    _stage(source, staged, sha256, document, prompt)
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


def _stage(source: Path, staged: Path, sha256: str, document: dict[str, Any], prompt: bytes | None) -> None:
    remove_tree(staged, ignore_errors=True)
    make_folder(staged)
    for name in ADAPTER_FILES:
        try:
            with open(source / name, "rb", opener=opener) as original, (staged / name).open("xb") as copy:
                shutil.copyfileobj(original, copy)
        except (FileNotFoundError, NotPlain) as error:
            raise PublishError(f"{source.name}: {name} is missing") from error
    if adapter_sha256(staged) != sha256:
        remove_tree(staged)
        raise PublishError(f"{source.name}: the weights are not those that were validated")
    if prompt is not None:
        (staged / PROMPT).write_bytes(prompt)
    write_whole(staged / FILE, json.dumps(document, indent=2) + "\n")
    for path in staged.iterdir():
        sync_file(path)
    sync_folder(staged)


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
