"""Text of others is shown and not obeyed, wherever it is drawn."""

from __future__ import annotations

import pytest

from swarm.events import Post
from swarm.printable import in_message, one_line, printable, visible, without_control

HOSTILE = "a\x1b[31mred\x07\nb\x7f\u202egnp.exe\u2066\ud800"


@pytest.mark.parametrize("fit", [visible, one_line, in_message])
def test_text_on_a_line_holds_only_printable_characters(fit: object) -> None:
    assert callable(fit)
    assert fit(HOSTILE).isprintable()
    assert fit("plain · α16 [bold]") == "plain · α16 [bold]"


def test_the_character_that_was_there_can_be_recovered_from_its_code() -> None:
    assert visible(HOSTILE) == r"a\x1b[31mred\x07\nb\x7f\u202egnp.exe\u2066\ud800"
    assert in_message("") == "''"


def test_text_of_several_lines_keeps_its_lines_and_what_joins_letters() -> None:
    text = "one\n\ttwo\u00a0three \u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645"
    assert printable(text) == text
    assert printable("one\r\x1b[2J") == r"one\r\x1b[2J"


def test_the_file_of_the_log_holds_no_control_characters_but_every_language() -> None:
    assert without_control(HOSTILE) == r"a\x1b[31mred\x07" + "\n" + r"b\x7f" + "\u202egnp.exe\u2066" + r"\ud800"
    assert Post(ref="-", body=HOSTILE).body == without_control(HOSTILE)
