"""prepare: dataset files become tokenised rows under `prepared/<key>/`, shared by all streams that ask for the same."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

from swarm.events import Prepared
from swarm.messages import Piece
from swarm.plainfiles import make_folder, remove_tree
from swarm.policy.fitting import refuse_unfit
from swarm.weights import MANIFEST, OF_MODELS, TOKENIZER, sha256_in_run
from trainer import bases, models, whole
from trainer.data import tokenizer_files
from trainer.data.boundary import boundary_of
from trainer.data.prepared import Key, key_of
from trainer.data.preparing import Preparation
from trainer.data.prompt import read_prompt
from trainer.lease import Lease
from trainer.loading import load_tokenizer
from trainer.place import Place

COUNTS = ("rows", "held_out", "bad", "tokens", "supervised", "cut")


def run(piece: Piece, lease: Lease, place: Place) -> None:
    found = {name: _prepared(one, lease, place) for name, one in models.pieces(piece, place).items()}
    lease.report(found[""] if "" in found else _all(piece, found, place))


def _all(piece: Piece, found: dict[str, Prepared], place: Place) -> Prepared:
    """The rows of several models as one folder, whose manifest names each one's."""
    of = {name: {"path": rows.path, "sha256": rows.sha256} for name, rows in found.items()}
    counts = {count: sum(getattr(rows, count) for rows in found.values()) for count in COUNTS}
    key = hashlib.sha256(json.dumps(of, sort_keys=True).encode()).hexdigest()
    folder = place.run_folder / "prepared" / key[:16]
    if _found(folder) is None:
        staged = folder.with_name(f".{folder.name}.{os.getpid()}-{piece.token}")
        make_folder(staged)
        whole.seal(staged, {OF_MODELS: of, **counts})
        whole.publish(staged, folder)
    body = "\n".join(f"{name}: {line}" for name, rows in found.items() for line in (rows.body or "").splitlines())
    path, sha256 = place.relative(folder), sha256_in_run(folder / MANIFEST)
    return Prepared(ref=piece.ref, tok=piece.token, path=path, sha256=sha256, body=body, **counts)


def _prepared(piece: Piece, lease: Lease, place: Place) -> Prepared:
    base_folder = bases.folder_of(piece.settings.base_model)
    known = bases.facts_of(piece.settings.base_model, trust_remote_code=piece.settings.trust_remote_code)
    refuse_unfit(piece.settings, known)
    key = key_of(piece.settings, base_folder)
    folder = place.run_folder / "prepared" / key.folder
    facts, body = _found(folder), ""
    if facts is None:
        facts, body = _made(piece, key, base_folder, folder, lease, known.embedding_rows)
    sha256 = sha256_in_run(folder / MANIFEST)
    counts = {name: facts[name] for name in COUNTS}
    return Prepared(ref=piece.ref, tok=piece.token, path=place.relative(folder), sha256=sha256, body=body, **counts)


def _found(folder: Path) -> dict[str, Any] | None:
    """What another stream has prepared; a folder that is not whole is removed."""
    if not folder.exists():
        return None
    try:
        return whole.verify(folder)
    except whole.Torn:
        remove_tree(folder)
        return None


def _made(
    piece: Piece, key: Key, base_folder: Path, folder: Path, lease: Lease, embedding_rows: int
) -> tuple[dict[str, Any], str]:
    settings = piece.settings
    tokenizer = load_tokenizer(base_folder, trust_remote_code=settings.trust_remote_code)
    boundary = boundary_of(settings, tokenizer, base_folder, embedding_rows)
    staged = folder.with_name(f".{folder.name}.{os.getpid()}-{piece.token}")
    make_folder(staged)
    try:
        preparation = Preparation(settings, boundary, staged, _progress(lease))
        facts = preparation.make(key)
        make_folder(staged / TOKENIZER)
        prompt = read_prompt(staged)
        tokenizer_files.copy(base_folder, staged / TOKENIZER, prompt.chat_template if prompt else None)
        whole.seal(staged, facts)
        whole.publish(staged, folder)
    finally:
        remove_tree(staged, ignore_errors=True)
    return facts, "\n".join(preparation.remarks(facts))


def _progress(lease: Lease) -> Any:
    def progress(rows: int) -> None:
        lease.step = rows
        lease.check()

    return progress
