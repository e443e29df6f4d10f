"""The gate behind the boundary: tokens that must not be trained on, whatever made them; and `swarm data check`, which runs all of it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from swarm.errors import UserError
from swarm.settings import StreamSettings
from tests.trainer import tiny
from tests.trainer.conftest import Bench
from trainer.data.bad import NotProven
from trainer.data.rows import Chat, Pair, Row, Text
from trainer.data.soundness import refuse_unsound
from trainer.data.tokens import IGNORED, Tokeniser, Tokens, stop_tokens
from trainer.rowfiles import checking

Make = Callable[..., StreamSettings]
PAIR = Pair("q", "a")


def sound(row: Row, ids: list[int], labels: list[int], *, cut: int = 0, embedding: int = 300, **options: bool) -> None:
    tokenizer = tiny.tokenizer()
    tokeniser = Tokeniser(tokenizer, stop_tokens(tokenizer, None), 64, **options)
    refuse_unsound(row, Tokens(ids, labels, 1, cut), tokeniser, embedding)


def test_tokens_of_a_sound_row_pass() -> None:
    sound(PAIR, [7, 8, 2], [IGNORED, 8, 2])
    sound(Text("a"), [7, 8, 2], [7, 8, 2])
    sound(PAIR, [7, 8, 2], [7, 8, 2], train_on_inputs=True)
    sound(PAIR, [7, 8], [IGNORED, 8], cut=3)


@pytest.mark.parametrize(
    ("ids", "labels", "words"),
    [
        ([7, 300, 2], [IGNORED, 300, 2], "its tokenizer makes the token 300, and its embedding has 300 rows"),
        ([7, 8, 2], [7, 8, 2], "every token of it is supervised, although `train_on_inputs` is false"),
        ([7, 8, 2], [IGNORED, 8, IGNORED], "no stop token is among its supervised ones"),
    ],
)
def test_what_would_spoil_an_adapter_is_refused(ids: list[int], labels: list[int], words: str) -> None:
    with pytest.raises(NotProven, match=words):
        sound(PAIR, ids, labels)


def test_an_answer_that_nobody_asked_for_is_a_bad_row_where_the_template_writes_no_header(tmp_path: Path) -> None:
    """Everything of it would be supervised."""
    tokenizer = tiny.tokenizer("{%- for m in messages -%}{{- m['content'] + '<|im_end|>' -}}{%- endfor -%}")
    tokeniser = Tokeniser(tokenizer, stop_tokens(tokenizer, None), 64)
    row = Chat([{"role": "assistant", "content": "ho"}])
    with pytest.raises(NotProven, match="every token of it is supervised"):
        refuse_unsound(row, tokeniser.tokens(row), tokeniser, None)


def test_a_template_without_room_for_the_system_prompt_is_to_blame(
    bench: Bench, settings: Make, tmp_path: Path
) -> None:
    refuses = (
        "{%- if messages[0]['role'] == 'system' -%}{{- raise_exception('System role not supported') -}}{%- endif -%}"
    )
    base = tiny.save_base(tmp_path / "base", refuses + tiny.CHATML)
    bench.do("prepare", settings(base_model=str(base)))
    with pytest.raises(UserError, match=r"base_model: the base's chat template refuses it \(System role not supported\) \(so for all 60"):  # fmt: skip
        bench.do("prepare", settings(base_model=str(base), system_prompt="be kind"))


def test_check_says_what_a_run_would_train_on_and_what_it_would_refuse(
    settings: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = {
        "good": settings().model_dump(mode="json"), "again": settings(seed=3).model_dump(mode="json"),
        "cut": settings(sequence_len=8).model_dump(mode="json"),
    }  # fmt: skip
    path = tmp_path / "streams.json"
    path.write_text(json.dumps(given))
    assert checking.main(["--settings", str(path), "--json"]) == 2
    good, again, cut = json.loads(capsys.readouterr().out)
    assert (good["rows"], good["held_out"], good["problem"]) == (48, 12, "")
    assert {**again, "stream": "good"} == good
    assert cut["problem"].startswith("sequence_len: 8 tokens cut 60 of 60 rows before their answer (")
    path.write_text(json.dumps({"good": given["good"]}))
    assert checking.main(["--settings", str(path)]) == 0
    assert capsys.readouterr().out.startswith("good: 48 rows to train on, 12 held out; ")
