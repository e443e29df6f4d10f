"""Scores of answers: the libraries' own results where there is a library, and figures one can count on one's fingers elsewhere."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import sacrebleu
from rouge_score.rouge_scorer import RougeScorer

from swarm import figures
from swarm.errors import UserError
from swarm.settings import StreamSettings
from trainer.judge import scorers
from trainer.judge.answers import Answer
from trainer.judge.scorers import Given

EXPECTED = ["The cat sat on the mat.", "Paris", "a b c d e f", "Der Hund läuft über die Straße."]
ANSWERS = ["the cat  sat on a mat", "paris", "f e d c b a", "Der Hund läuft über die Wiese."]


def given(answers: list[str], expected: list[str] | None = None, **changes: object) -> list[Given]:
    settings = StreamSettings.model_validate({"base_model": "tiny-toon", "datasets": [{"path": "x.jsonl"}], **changes})
    pairs = zip(expected or answers, answers, strict=True)
    return [Given(wanted, Answer(text, True, len(text), 2.0), settings) for wanted, text in pairs]


def measured(metric: str, asked: list[Given]) -> float:
    return scorers.of_all(scorers.of_each([metric], asked), asked)[metric]


def test_every_metric_has_a_scorer_or_is_made_of_the_losses() -> None:
    without = [name for name in figures.measurable() if name not in scorers.scorers()]
    assert without == [
        "perplexity",
        "eval_token_accuracy",
        *(name for name in without if figures.of(name).of == "retention"),
    ]


def test_rouge_is_what_rouge_score_says() -> None:
    theirs = RougeScorer(["rouge1", "rouge2", "rougeL"])
    results = [theirs.score(wanted, text) for wanted, text in zip(EXPECTED, ANSWERS, strict=True)]
    asked = given(ANSWERS, EXPECTED)
    for ours, name in (("rouge_1", "rouge1"), ("rouge_2", "rouge2"), ("rouge_l", "rougeL")):
        assert scorers.of_each([ours], asked)[ours] == [result[name].fmeasure for result in results]
        assert measured(ours, asked) == pytest.approx(sum(r[name].fmeasure for r in results) / 4, abs=1e-6)


def test_bleu_and_chrf_of_all_answers_are_sacrebleus_of_the_corpus() -> None:
    asked = given(ANSWERS, EXPECTED)
    assert measured("bleu", asked) == pytest.approx(sacrebleu.corpus_bleu(ANSWERS, [EXPECTED]).score, abs=1e-6)
    assert measured("chrf", asked) == pytest.approx(sacrebleu.corpus_chrf(ANSWERS, [EXPECTED]).score, abs=1e-6)
    each = scorers.of_each(["bleu"], asked)["bleu"]
    assert each == [sacrebleu.sentence_bleu(a, [e]).score for a, e in zip(ANSWERS, EXPECTED, strict=True)]


@pytest.mark.parametrize(
    ("metric", "answers", "scores"),
    [
        ("exact_match", ["The cat sat on the mat. Yes.", "Paris", "a b c d e F", "Der Hund"], [0, 1, 0, 0]),
        ("exact_match_normalised", ["THE cat, sat on\nthe mat", "paris!", "a b c", ""], [1, 1, 0, 0]),
        ("json_valid", ['{"a": 1}', "[1, 2", "NaN", 'said: {"a": 1}'], [1, 0, 0, 0]),
        ("toon_valid", ["a: 1\nb[2]: 1,2", "a[2]: 1", "", '"open'], [1, 0, 0, 0]),
        ("headings", ["# One\ntext", "#no", "text\n### Three", "#### four"], [1, 0, 1, 0]),
        ("lists", ["- a", "text\n 2. b", "-a", "2.5 kg"], [1, 1, 0, 0]),
        ("bold", ["**a**", "__b__", "2 ** 3 ** 4", "* a *"], [1, 1, 1, 0]),
        ("words", ["one two", "", "a\nb c", "d"], [2, 0, 3, 1]),
        ("banned", ["Human: a Human:", "### Response: b", "ok", "human:"], [2, 1, 0, 0]),
    ],
)
def test_a_score_that_can_be_counted(metric: str, answers: list[str], scores: list[float]) -> None:
    asked = given(answers, EXPECTED)
    assert scorers.of_each([metric], asked)[metric] == scores
    assert measured(metric, asked) == sum(scores) / 4


def test_an_answer_that_was_cut_has_not_ended_and_speed_is_of_all_tokens_together() -> None:
    settings = given(["x"])[0].settings
    asked = [Given("a", Answer("a", True, 30, 1.0), settings), Given("a", Answer("b", False, 10, 3.0), settings)]
    assert measured("ended", asked) == 0.5
    assert measured("answer_tokens_per_second", asked) == 10


def test_json_is_matched_against_the_schema_of_the_file(tmp_path: Path) -> None:
    schema = tmp_path / "schema.json"
    schema.write_text(json.dumps({"type": "object", "required": ["a"], "properties": {"a": {"type": "integer"}}}))
    asked = given(['{"a": 1}', '{"a": "1"}', "{}", "no"], EXPECTED, json_schema=str(schema))
    assert scorers.of_each(["json_schema"], asked)["json_schema"] == [1, 0, 0, 0]
    schema.with_name("bad.json").write_text('{"type": "nothing"}')
    for name in ("bad.json", "none.json"):
        with pytest.raises(UserError, match=r"^json_schema: .* holds no JSON schema"):
            scorers.of_each(["json_schema"], given(["1"], json_schema=str(tmp_path / name)))


def test_a_missing_library_is_named_with_the_extra_that_brings_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "sacrebleu", None)
    with pytest.raises(UserError, match=r"metrics: bleu needs the package sacrebleu; .*toonswarm\[judge\]"):
        scorers.of_each(["bleu"], given(["a"]))
