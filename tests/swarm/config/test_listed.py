"""docs/settings.md lists every setting as it is now."""

from __future__ import annotations

from pathlib import Path

import pytest

from swarm import settings as written
from swarm.config import listed
from swarm.config.names import LISTED_IN
from swarm.keys import Settings

ROOT = Path(__file__).parents[3]


def test_the_list_is_what_the_settings_say() -> None:
    assert (ROOT / LISTED_IN).read_text(encoding="utf-8") == listed.text(), "python -m swarm.config.listed writes it"
    assert f"]({LISTED_IN})" in (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("group", listed.TITLES)
def test_every_setting_says_what_it_is(group: type[Settings]) -> None:
    assert all(f"| `{name}` | " in listed.text() for name in group.model_fields)
    assert [*group.model_fields.keys() - group.descriptions().keys()] == []


def test_no_group_of_settings_is_left_out() -> None:
    named = {group for group in vars(written).values() if isinstance(group, type) and issubclass(group, Settings)}
    assert named - set(listed.TITLES) == {written.Part}  # a stream's table holds those of a part
