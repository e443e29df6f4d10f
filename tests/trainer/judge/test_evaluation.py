"""Evaluation outside a run: everybody answers in one batch what each answers alone, figures and samples agree."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from swarm.errors import UserError
from swarm.settings import StreamSettings
from swarm.weights import ADAPTER
from tests.trainer import tiny
from tests.trainer.conftest import Bench
from toon import decode
from trainer import bases
from trainer.data.prompt import Prompt
from trainer.judge import evaluation, measurement
from trainer.judge.together import Together
from trainer.loading import load_base
from trainer.place import Place
from trainer.ship.sources import sources_of

Make = Callable[..., StreamSettings]
pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning:transformers")


@pytest.fixture
def adapters(bench: Bench, settings: Make, tmp_path: Path) -> list[Path]:
    """LoRA, DoRA and rsLoRA of other ranks, with weights that make each answer otherwise."""
    found = []
    torch.manual_seed(1)
    for name, changes in {
        "lora": {},
        "dora": {"use_dora": True, "lora_r": 4},
        "rs": {"use_rslora": True, "lora_r": 2},
    }.items():
        trained = bench.trained(settings(max_steps=2, **changes))["trained"]
        folder = tmp_path / "kept" / name / "adapter"
        shutil.copytree(bench.place.run_folder / trained.path, folder)
        tensors = load_file(folder / ADAPTER)
        drawn = {key: torch.randn_like(value) * 0.3 if ".lora_B." in key else value for key, value in tensors.items()}
        save_file(drawn, folder / ADAPTER)
        found.append(folder)
    return found


def named(adapters: list[Path]) -> list[str]:
    return [f"{folder.parent.name}={folder}" for folder in adapters]


def options(rows_file: Path, adapters: list[Path], *more: str) -> list[str]:
    words = ["--data", str(rows_file), "--type", "prompt_completion", "--rows", "20", "--max-new-tokens", "8"]
    return [*words, *more, *named(adapters)]


def evaluated(rows_file: Path, adapters: list[Path], settings: StreamSettings) -> measurement.Evaluated:
    data = [{"path": str(rows_file), "type": "prompt_completion"}]
    chosen = StreamSettings.model_validate({**settings.model_dump(), "test_datasets": data, "eval_rows": 20})
    return measurement.evaluated(sources_of(named(adapters)).adapters, chosen, Place(Path.cwd(), "cpu"))


def test_everybody_in_one_batch_answers_as_each_does_alone(
    adapters: list[Path], rows_file: Path, settings: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = settings(eval_max_new_tokens=8)
    at_once = evaluated(rows_file, adapters, chosen)

    def refused(*_: object) -> None:
        raise UserError("bias", "the shared engine has no adapter of this kind", "set engine: trl")

    monkeypatch.setattr("trainer.judge.measurement.Together.__init__", refused)
    alone = evaluated(rows_file, adapters, chosen)
    assert at_once.names == alone.names == ["base", "lora", "dora", "rs"]
    for one, other in zip(at_once.results, alone.results, strict=True):
        assert [answer.text for answer in one.answers] == [answer.text for answer in other.answers]
        assert [row.nats for row in one.losses] == pytest.approx([row.nats for row in other.losses], rel=1e-4)
    assert len({tuple(answer.text for answer in result.answers) for result in at_once.results}) >= 3


def test_the_base_is_as_it_was_when_the_adapters_are_gone(adapters: list[Path], settings: Make) -> None:
    chosen = settings()
    model = load_base(bases.folder_of(chosen.base_model), chosen, Place(Path.cwd(), "cpu"))
    before = [name for name, _ in model.named_modules()]
    Together(model, adapters).close()
    assert [name for name, _ in model.named_modules()] == before


def test_figures_differences_and_samples_come_as_a_table_as_json_and_as_toon(
    adapters: list[Path], rows_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    samples = tmp_path / "samples.jsonl"
    words = options(rows_file, adapters, "--metrics", "exact_match,words", "--samples", str(samples))
    assert evaluation.main(["--json", *words]) == 0
    as_json = json.loads(capsys.readouterr().out)
    assert [row["adapter"] for row in as_json["figures"]] == ["base", "lora", "dora", "rs"]
    assert (as_json["rows"], as_json["asked"]) == (60, 20)
    rows = [json.loads(line) for line in samples.read_text().splitlines()]
    assert len(rows) == 20
    mean = sum(row["rs words"] for row in rows) / 20
    assert as_json["figures"][3]["words"] == pytest.approx(mean, abs=1e-5)
    [against] = [row for row in as_json["against_base"] if (row["adapter"], row["figure"]) == ("lora", "eval_loss")]
    losses = {row["adapter"]: row["eval_loss"] for row in as_json["figures"]}
    assert against["difference"] == pytest.approx(losses["base"] - losses["lora"], abs=1e-4)
    assert against["low"] <= against["difference"] <= against["high"]
    evaluation.main(["--toon", *words])
    assert decode(capsys.readouterr().out)["figures"][3]["adapter"] == "rs"
    evaluation.main(words)
    line = next(
        line for line in capsys.readouterr().out.splitlines() if line.startswith("lora against base, held-out:")
    )
    gap, word = against["difference"], "better" if against["difference"] >= 0 else "worse"
    assert (
        f"{word} by {abs(gap):.4g} (99% interval " in line and f"detectable from {against['detectable']:.3g} on" in line
    )


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (
            ["--metrics", "meteor"],
            "--metrics: 'meteor' is no metric here; take some of eval_loss, perplexity, eval_token_accuracy, exact_match",
        ),
        (["--metrics", "json_schema"], "json_schema: is not set, but `metrics` names json_schema"),
        (["--data", "nowhere.jsonl"], "--data: there is no file nowhere.jsonl"),
        (["--type", "chatml"], "no column 'messages'"),
        (["--type", "nosuch"], "--type: 'nosuch' cannot be taken; input should be 'auto', 'chatml', 'alpaca'"),
        (["--rows", "-1"], "--rows: -1 cannot be taken; input should be greater than or equal to 0"),
        (["--device", "tpu"], "--device: 'tpu' is no device; take cpu, mps, or gpu0"),
    ],
)
def test_a_mistake_is_one_line_and_exit_status_2(
    adapters: list[Path], rows_file: Path, capsys: pytest.CaptureFixture[str], words: list[str], problem: str
) -> None:
    assert evaluation.main([*options(rows_file, []), *words, *named(adapters)]) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert problem in lines[-1]


def test_a_folder_without_an_adapter_and_two_bases_are_refused(
    adapters: list[Path], rows_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert evaluation.main(options(rows_file, [tmp_path])) == 2
    assert "holds no adapter_config.json" in capsys.readouterr().err
    config = json.loads((adapters[1] / "adapter_config.json").read_text())
    for named, problem in {
        "another/base": "its base another/base is not on",
        "tiny-toon": "the adapters have different bases",
    }.items():
        (adapters[1] / "adapter_config.json").write_text(json.dumps({**config, "base_model_name_or_path": named}))
        assert evaluation.main(options(rows_file, adapters)) == 2
        assert problem in capsys.readouterr().err


def test_rows_are_rendered_as_they_were_in_training(
    adapters: list[Path], rows_file: Path, settings: Make, capsys: pytest.CaptureFixture[str]
) -> None:
    template = tiny.CHATML.replace("<|im_start|>", "<|im_start|>the ")
    stops = (tiny.tokenizer().eos_token_id,)
    for folder in adapters:
        Prompt(template, "\n", stops).write(folder)
    found = evaluated(rows_file, adapters, settings(eval_max_new_tokens=2))
    assert found.examination.asked[0].prompt.startswith("the user")
    Prompt(tiny.CHATML, "\n", stops).write(adapters[0])
    assert evaluation.main(options(rows_file, adapters)) == 2
    assert "were trained with different chat templates" in capsys.readouterr().err


def test_an_adapter_that_was_trained_on_a_base_in_4_bits_is_measured_on_one_and_a_base_may_stand_alone(
    adapters: list[Path], rows_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--rows", "2", "--max-new-tokens", "2", "--json"]
    losses = []
    for kind in ("lora", "qlora"):
        (adapters[0] / "lineage.json").write_text(json.dumps({"settings": {"adapter": kind}}))
        assert evaluation.main(options(rows_file, adapters[:1], *words)) == 0
        losses.append(json.loads(capsys.readouterr().out)["figures"][0]["eval_loss"])
    assert losses[0] != losses[1]
    base = json.loads((adapters[0] / "adapter_config.json").read_text())["base_model_name_or_path"]
    assert evaluation.main([*options(rows_file, [], *words), base]) == 0
    assert [row["eval_loss"] for row in json.loads(capsys.readouterr().out)["figures"]] == [losses[0]]
