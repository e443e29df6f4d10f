"""A stream's task as one task for each of its models; a stream of one model has one, under no name.

What is measured of a model begins with its name where there are two; `eval_loss` is their mean.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean

from swarm import figures
from swarm.messages import Piece
from swarm.settings import Part, StreamSettings
from swarm.weights import OF_MODELS
from trainer.data.prepared import verified
from trainer.place import Place

MEANS = ("eval_loss", f"{figures.BASE}eval_loss")
"""Figures of a stream of two models that are means of theirs: promotion compares by the first."""


def pieces(piece: Piece, place: Place) -> dict[str, Piece]:
    """By model.  Raises UserError where the rows are not those of the log."""
    parts = piece.settings.parts
    if len(parts) == 1:
        return {"": piece}
    rows = _rows(piece, place)
    found = {}
    for name, part in parts.items():
        assert isinstance(part, StreamSettings)
        stated = {"eval_loss": loss} if (loss := piece.figures.get(f"{name}_eval_loss")) is not None else {}
        known = {"settings": part, "figures": stated, **rows.get(name, {})}
        found[name] = piece.model_copy(update=known)
    return found


def _rows(piece: Piece, place: Place) -> dict[str, dict[str, str]]:
    if piece.prepared is None:
        return {}
    facts = verified(place.run_folder / piece.prepared, piece.prepared_sha256)[OF_MODELS]
    return {name: {"prepared": of["path"], "prepared_sha256": of["sha256"]} for name, of in facts.items()}


def joined(measured: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """The figures of all models as those of the stream."""
    if "" in measured:
        return dict(measured[""])
    found = {_named(name, figure): value for name, of in measured.items() for figure, value in of.items()}
    means = {figure: [of[figure] for of in measured.values() if figure in of] for figure in MEANS}
    return {**{figure: round(fmean(values), 6) for figure, values in means.items() if values}, **found}


def rows_by_model(
    settings: StreamSettings, rows: Sequence[Mapping[str, float]]
) -> dict[str, tuple[Part, list[Mapping[str, float]]]]:
    """The settings of each model and what was measured of it in each step; a stream of one model has one, under no name."""
    if len(settings.parts) == 1:
        return {"": (settings, list(rows))}
    return {name: (part, [_own(name, row) for row in rows]) for name, part in settings.parts.items()}


def _own(model: str, row: Mapping[str, float]) -> dict[str, float]:
    own = {name.removeprefix(f"{model}_"): value for name, value in row.items() if name.startswith(f"{model}_")}
    return {"step": row["step"], **own}


def _named(model: str, figure: str) -> str:
    """base_eval_loss of the encoder is base_encoder_eval_loss."""
    plain = figure.removeprefix(figures.BASE)
    return f"{figures.BASE if plain != figure else ''}{model}_{plain}"
