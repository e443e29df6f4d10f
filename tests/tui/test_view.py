"""A view says which streams are shown, selected and overlaid."""

from __future__ import annotations

from dataclasses import replace

from tests.tui.runs import run_at, sketch
from tui.view import View


def names(view: View) -> list[str]:
    return [row.name for row in view.rows]


def test_every_word_of_a_filter_must_stand_in_the_row() -> None:
    assert names(View(sketch(), words="stalled")) == ["qlora-8"]
    assert names(View(sketch(), words="LORA r8")) == ["lora-8", "qlora-8"]
    assert names(View(sketch(), words="no step")) == ["qlora-8"]
    assert names(View(sketch(), words="nothing of it")) == []


def test_a_state_in_the_filter_means_streams_in_that_state_and_no_reason_that_holds_the_word() -> None:
    run = sketch()
    waiting = replace(run.streams[0], state="wait", why="for train")
    run = replace(run, streams=(waiting, *run.streams[1:]))
    assert names(View(run, words="train")) == ["dora-8"]
    assert names(View(run, words="state:t")) == ["dora-8"]
    assert names(View(run, words="why:train")) == ["lora-8"]


def test_the_selected_stream_is_the_first_one_where_the_filter_hides_it() -> None:
    view = View(sketch(), selected="lora-8")
    assert view.row and view.row.name == "lora-8"
    hidden = replace(view, words="stalled").row
    assert hidden and hidden.name == "qlora-8"
    assert View(sketch(), words="zebra").row is None


def test_the_first_streams_are_overlaid_until_somebody_chooses() -> None:
    view = View(run_at(72, n=12))
    assert len(view.overlaid) == 6
    assert "lora-8" not in view.toggled("lora-8").marks
    assert len(view.toggled("qlora-8-s2").overlaid) == 7


def test_without_a_mark_the_selected_stream_is_drawn() -> None:
    view = View(sketch(), selected="dora-8", marked=frozenset())
    assert [row.name for row in view.overlaid] == ["dora-8"]


def test_workers_are_ordered_by_name_or_by_device() -> None:
    run = run_at(72)
    moved = tuple(replace(w, device="gpu1" if w.name == "light-1" else "gpu0") for w in run.workers)
    assert View(replace(run, workers=moved)).workers[0].name == "light-1"
    assert View(replace(run, workers=moved), by_device=True).workers[-1].name == "light-1"


def test_streams_are_sorted_by_name_state_figure_and_eta_and_what_is_not_known_comes_last() -> None:
    run = sketch()
    unknown = replace(run.streams[0], figures={}, eta_seconds=None)
    view = View(replace(run, streams=(unknown, *run.streams[1:])))
    assert names(view) == ["lora-8", "lora-32", "dora-8", "qlora-8"]
    assert names(replace(view, order="name")) == ["dora-8", "lora-32", "lora-8", "qlora-8"]
    assert names(replace(view, order="loss"))[0] == "lora-32" and names(replace(view, order="loss"))[-1] == "lora-8"
    assert names(replace(view, order="eta"))[0] == "dora-8"
    assert view.free_name("lora-8") == "lora-8-2"


def test_curves_of_phi_and_mode_are_offered_where_a_stream_has_a_controller() -> None:
    """U21."""
    run = sketch()
    points = {"loss": ((1, 2.0),), "learning_rate": ((1, 1e-3),)}
    plain = replace(run.streams[0], curves=points)
    steered = replace(run.streams[1], curves={**points, "phi": ((1, 0.1),), "mode": ((1, 0.0),)})
    assert View(replace(run, streams=(plain,))).drawable == ("loss", "learning_rate")
    assert View(replace(run, streams=(plain, steered))).drawable == ("loss", "learning_rate", "phi", "mode")
    assert View(replace(run, streams=())).drawable == ("loss",)


def test_what_only_later_streams_have_is_drawn_of_these_until_a_person_marks_others() -> None:
    """U21: as in configs/unified_mrpc.yaml, whose streams with a controller come last."""
    run = run_at(72, n=9)
    steered = [replace(row, curves={**row.curves, "phi": ((1, 0.1),)}) for row in run.streams[6:]]
    view = View(replace(run, streams=(*run.streams[:6], *steered)))
    assert view.marks == {row.name for row in run.streams[:6]}
    assert replace(view, figure="phi").marks == {row.name for row in steered}
    chosen = view.toggled(run.streams[0].name)
    assert replace(chosen, figure="phi").marks == chosen.marks == {row.name for row in run.streams[1:6]}


def test_curves_of_each_model_of_a_pair_are_offered_beside_those_of_both() -> None:
    """D01, U21."""
    names = ("loss", "decoder_loss", "encoder_loss", "learning_rate", "decoder_phi")
    pair = replace(sketch().streams[0], curves=dict.fromkeys(names, ((1, 1.0),)))
    assert View(replace(sketch(), streams=(pair,))).drawable == (
        "loss",
        "encoder_loss",
        "decoder_loss",
        "learning_rate",
        "decoder_phi",
    )
