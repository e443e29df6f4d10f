"""U21: a stream's row says what the modes of its controller are called."""

from __future__ import annotations

from typing import Any

import pytest

from swarm.settings import StreamSettings
from swarm.views.streamrows import stream_rows
from tests.swarm.story import Story, settings

ROWS: dict[str, Any] = {"base_model": "b", "datasets": [{"path": "x"}]}


def pair(**controllers: str) -> dict[str, Any]:
    models = {name: {**ROWS, "controller": controllers.get(name, "none")} for name in ("encoder", "decoder")}
    return {"method": "duo", "models": models}


@pytest.mark.parametrize(("chosen", "modes"), [
    ({}, ()),
    ({"controller": "unified"}, ("single", "multi", "mirror")),
    ({"controller": "orbital"}, ("high", "base", "low")),
    (pair(decoder="orbital"), ("high", "base", "low")),
    (pair(encoder="unified", decoder="orbital"), ()),
])  # fmt: skip
def test_a_row_knows_the_names_of_its_controllers_modes_where_they_agree(
    chosen: dict[str, Any], modes: tuple[str, ...]
) -> None:
    stream = StreamSettings.model_validate({**ROWS, **chosen})
    run = settings("one").model_copy(update={"streams": {"one": stream}})
    [row] = stream_rows(Story("one").state, run, {}, (), 0.0)
    assert row.modes == modes
