"""What the text of a config cannot tell: bases and GPUs that are not here, told with all else that is wrong with it."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
from typer.testing import CliRunner

from swarm.cli import app
from swarm.config import load, of_run
from swarm.errors import UserErrors
from swarm.planning import gpus, machine_checks
from swarm.planning.gpus import Gpu
from swarm.rundir import RunFolder
from tests.families import facts_of

TEXT = """\
name: q
defaults:
  base_model: nosuch/thing
  datasets: [{path: data/train.jsonl}]
  learnig_rate: 1
streams:
  a: {}
  b: {base_model: other/none}
  c: {base_model: tiny-toon}
  d: {base_model: ./data}
placement: {gpus: [0, 99, 7]}
"""
OFFLINE = "is not on this machine; go online and unset HF_HUB_OFFLINE, name a local folder, or use `tiny-toon`"
TOLD = f"""\
my.yaml:3: defaults.base_model: nosuch/thing {OFFLINE}
my.yaml:5: defaults.learnig_rate: unknown setting; did you mean `learning_rate`?
my.yaml:8: streams.b.base_model: other/none {OFFLINE}
my.yaml:10: streams.d.base_model: ./data holds no config.json; name the folder of a whole model, not of an adapter
my.yaml:11: placement.gpus: there are no GPUs 99, 7; this machine has 0
command line: streams.c.base_model: zz/yy {OFFLINE}
6 problems; nothing was started"""


@pytest.fixture
def there(project: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The project as the working folder, on a machine without a network and with one GPU."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr(gpus, "found", lambda: [Gpu(0, "GPU-aa", "test", 10**12, 10**12)])
    monkeypatch.chdir(project)
    return project


@pytest.mark.parametrize("command", ["check", "plan", "run"])
def test_bases_and_gpus_that_are_not_here_are_reported_with_their_lines_and_all_else(there: Path, command: str) -> None:
    (there / "my.yaml").write_text(TEXT)
    told = CliRunner().invoke(app, [command, "my.yaml", "streams.c.base_model=zz/yy"]).exception
    assert isinstance(told, UserErrors)
    assert str(told) == TOLD
    assert not (there / "runs").exists()


def test_a_base_that_cannot_be_fetched_is_reported_where_it_is_written(
    there: Path, loading: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    (there / "my.yaml").write_text(TEXT.replace("  learnig_rate: 1\n", ""))
    read = load(Path("my.yaml"), ["streams.d.base_model=tiny-toon"], cwd=there)
    assert read.place("a", "base_model") == "my.yaml:3: defaults.base_model"
    assert read.place("b", "base_model") == "my.yaml:7: streams.b.base_model"
    with pytest.raises(
        machine_checks.UserError, match=r"^my\.yaml:3: defaults\.base_model: nosuch/thing is not on this machine"
    ):
        machine_checks.fetch({"nosuch/thing": facts_of("llama")}, lambda name: read.place("a", "base_model"), set())


def test_without_what_training_needs_a_config_can_still_be_checked(
    there: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine_checks, "missing_packages", lambda: ["torch"])
    (there / "my.yaml").write_text(TEXT.replace("  learnig_rate: 1\n", "").replace("[0, 99, 7]", "all"))
    assert CliRunner().invoke(app, ["check", "my.yaml", "streams.d.base_model=tiny-toon"]).exit_code == 0


@pytest.mark.parametrize(
    ("name", "data"),
    [("a.jsonl", ""), ("b.jsonl", "\n \n\ufeff\n"), ("c.csv", "prompt,completion\n"), ("d.json", "[]\n"), ("e.parquet", ""), ("f.toon", "")],
)  # fmt: skip
@pytest.mark.parametrize("command", ["check", "plan", "show", "run"])
def test_a_data_file_without_rows_is_reported_before_anything_starts(
    there: Path, name: str, data: str, command: str
) -> None:
    (there / name).write_text(data)
    (there / "my.yaml").write_text(TEXT.replace("  learnig_rate: 1\n", ""))
    words = [command, "my.yaml", "base_model=tiny-toon", "placement.gpus=all", f"datasets.0.path={name}"]
    told = CliRunner().invoke(app, words).exception
    assert isinstance(told, UserErrors)
    assert str(told) == (
        f"command line: datasets.0.path: {there / name} holds no rows; put rows into it, or name other files\n"
        "1 problem; nothing was started"
    )


def test_a_run_can_be_looked_at_where_its_data_are_not(there: Path) -> None:
    (there / "my.yaml").write_text(TEXT.replace("  learnig_rate: 1\n", ""))
    read = load(Path("my.yaml"), ["base_model=tiny-toon"], cwd=there)
    folder = RunFolder(there / "run")
    folder.path.mkdir()
    folder.config.write_text(read.dump())
    (there / "data/train.jsonl").unlink()
    assert of_run(folder, ()) == read.run
    with pytest.raises(UserErrors, match=r"no file matches"):
        load(folder.config, cwd=there)


def test_the_trainer_tells_a_problem_as_data_too(capsys: pytest.CaptureFixture[str]) -> None:
    from trainer import bases as judged

    assert judged.main(["--check=--odd", "--json"]) == 2
    said = capsys.readouterr()
    assert json.loads(said.out)["--odd"]["problem"] == "--odd is neither a folder nor a hub name"
    assert said.err == ""


CONFIG = """\
name: q
defaults:
  base_model: tiny-toon
  datasets: [{path: data/train.jsonl}]
  test_datasets: [{path: data/dev.jsonl}]
streams:
  long:
    sequence_len: 2048
  head:
    lora_target_modules: [q_proj, lm_head]
  typo: {lora_target_modules: (q|v)_proj}
  few:
    test_datasets: []
    val_set_size: 10
  fine:
"""


@pytest.mark.parametrize("command", ["check", "plan", "run"])
def test_what_a_worker_would_refuse_is_refused_before_anything_starts(there: Path, command: str) -> None:
    (there / "my.yaml").write_text(CONFIG)
    told = CliRunner().invoke(app, [command, "my.yaml", "placement.gpus=none"]).exception
    assert isinstance(told, UserErrors)
    layers = "its layers are q_proj, k_proj, v_proj, o_proj, gate_proj, up_proj, down_proj; or write all-linear"
    assert str(told).splitlines() == [
        "my.yaml:8: streams.long.sequence_len: 2048, and the base reads 1024 tokens; lower it",
        f"my.yaml:10: streams.head.lora_target_modules: lm_head is the head, which gets no adapter here; {layers}",
        (
            "my.yaml:11: streams.typo.lora_target_modules: the pattern '(q|v)_proj' matches no whole name of a layer, such as "
            f"model.layers.0.self_attn.q_proj; write .* before it, or a list of names: {layers}"
        ),
        (
            "my.yaml:14: streams.few.val_set_size: holds out 10 of 10 rows: none are left to train on; lower it, add rows, "
            "or name test_datasets"
        ),
        "4 problems; nothing was started",
    ]
    assert not (there / "runs").exists()


def test_the_trainer_is_asked_once_about_all_bases(there: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (there / "my.yaml").write_text(TEXT.replace("  learnig_rate: 1\n", "").replace("[0, 99, 7]", "all"))
    asked: list[list[str]] = []
    run = subprocess.run

    def counted(command: list[str], **how: object) -> object:
        asked.append(command)
        return run(command, **how)

    monkeypatch.setattr("swarm.planning.machine_checks.subprocess.run", counted)
    CliRunner().invoke(app, ["plan", "my.yaml", "streams.d.base_model=tiny-toon"])
    of_bases = [words for words in asked if "trainer.bases" in words]
    assert [[word for word in words if word.startswith("--check")] for words in of_bases] == [
        ["--check=nosuch/thing", "--check=other/none", "--check=tiny-toon"]
    ]


ROWS = [{"prompt": f"say {n}", "completion": f"{n}\nand a line"} for n in range(20)]


def write_rows(path: Path) -> None:
    """Twenty rows in the format that the file's ending names."""
    import csv

    import pyarrow as pa
    import pyarrow.parquet as pq

    import toon

    match path.suffix:
        case ".jsonl" | ".ndjson":
            path.write_text("\n".join(map(json.dumps, ROWS)))
        case ".json":
            path.write_text(json.dumps(ROWS))
        case ".csv":
            with path.open("w", newline="") as file:
                writer = csv.DictWriter(file, ["prompt", "completion"])
                writer.writeheader()
                writer.writerows(ROWS)
        case ".tsv":
            path.write_text("prompt\tcompletion\n" + "".join(f"say {n}\t{n}\n" for n in range(20)))
        case ".toon":
            path.write_text(toon.encode({"rows": ROWS}))
        case ".parquet":
            pq.write_table(pa.Table.from_pylist(ROWS), path)
        case ".arrow":
            table = pa.Table.from_pylist(ROWS)
            with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, table.schema) as writer:
                writer.write_table(table)


@pytest.mark.parametrize("name", ["a.jsonl", "a.ndjson", "a.json", "a.csv", "a.tsv", "a.parquet", "a.arrow", "a.toon"])
def test_more_held_out_rows_than_there_are_is_told_by_check_for_every_format(there: Path, name: str) -> None:
    write_rows(there / name)
    (there / "my.yaml").write_text(TEXT.replace("  learnig_rate: 1\n", ""))
    kind = "datasets.0.type=prompt_completion"
    words = ["check", "my.yaml", "base_model=tiny-toon", "placement.gpus=all", f"datasets.0.path={name}", kind]
    fine = CliRunner().invoke(app, [*words, "val_set_size=19"])
    assert (fine.exit_code, fine.exception) == (0, None)
    refused = CliRunner().invoke(app, [*words, "val_set_size=100"]).exception
    assert isinstance(refused, UserErrors)
    assert str(refused).splitlines()[0] == (
        "command line: val_set_size: holds out 100 of 20 rows: none are left to train on; lower it, add rows, or name test_datasets"
    )


@pytest.mark.parametrize(
    ("name", "data", "what"),
    [
        ("a.json", b"[{", "not JSON ("), ("a.json", b"7", "holds no list of rows"), ("a.toon", b"rows[2]{a}:\n  1\n", "not TOON ("),
        ("a.csv", b"a,a\n1,2\n", "2 columns are named 'a'"), ("a.parquet", b"PAR1", "not a Parquet file that can be read ("),
        ("a.arrow", b"x" * 20, "not a Arrow file that can be read ("),
    ],
)  # fmt: skip
def test_a_data_file_that_is_not_what_its_ending_says_is_told_by_check(
    there: Path, name: str, data: bytes, what: str
) -> None:
    (there / name).write_bytes(data)
    (there / "my.yaml").write_text(TEXT.replace("  learnig_rate: 1\n", ""))
    words = ["check", "my.yaml", "base_model=tiny-toon", "placement.gpus=all", f"datasets.0.path={name}"]
    refused = CliRunner().invoke(app, words).exception
    assert isinstance(refused, UserErrors)
    [problem, _] = str(refused).splitlines()
    assert problem.startswith(f"command line: datasets.0.path: {there / name}: {what}")


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("num_epochs: 2, plateau_patience: 9", "plateau_patience: it can end nothing before step 10 x 1 = 10 (10 logged steps), and the training has 10; write at most 8"),
        ("num_epochs: 2, plateau_patience: 8", None),
        ("num_epochs: 1, eval_steps: 3, early_stopping_patience: 1", "early_stopping_patience: it can end nothing before step 2 x 3 = 6 (2 evaluations), and the training has 5"),
        ("num_epochs: 2, max_tokens: 10_000", "max_tokens: 10 steps x 256 tokens are 2560 at most"),
        ("max_steps: 5, plateau_window: 3", "plateau_window: it does nothing without `plateau_patience`; set `plateau_patience`, or leave it out"),
        ("max_steps: 5, max_minutes_from: start", "max_minutes_from: it does nothing without `max_minutes`"),
        ("max_steps: 5, early_stopping_min_delta: 0.1", "early_stopping_min_delta: it does nothing without `early_stopping_patience`"),
        ("max_steps: 5, plateau_window: 3, plateau_patience: null", None),
    ],
)  # fmt: skip
def test_a_stop_that_the_rows_cannot_reach_or_that_nothing_arms_is_told_by_check(
    there: Path, line: str, problem: str | None
) -> None:
    """20 rows, 4 a step."""
    (there / "twenty.jsonl").write_text("".join(f'{{"prompt": "{n}", "completion": "{n}"}}\n' for n in range(20)))
    own = f"base_model: tiny-toon, datasets: [{{path: twenty.jsonl}}], test_datasets: [{{path: twenty.jsonl}}], allow_overlap: true, sequence_len: 64, micro_batch_size: 4, {line}"
    (there / "my.yaml").write_text(f"name: q\nplacement: {{gpus: none}}\nstreams:\n  a: {{{own}}}\n")
    done = CliRunner().invoke(app, ["check", "my.yaml"])
    if problem is None:
        assert done.exit_code == 0, done.exception
    else:
        assert f"my.yaml:4: streams.a.{problem}" in str(done.exception)


def test_float16_needs_a_gpu_and_the_engine_that_scales_losses(there: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """G19."""
    head = (
        "name: q\ndefaults:\n  base_model: tiny-toon\n  datasets: [{path: data/train.jsonl}]\n  fp16: true\nstreams:\n"
    )
    streams = "  a: {}\n  b: {bf16: true}\n  c: {engine: trl}\n  d: {method: dpo}\n"
    (there / "my.yaml").write_text(head + streams)
    monkeypatch.setattr(gpus, "found", list)
    told = CliRunner().invoke(app, ["check", "my.yaml"]).exception
    assert str(told).splitlines() == [
        "my.yaml:4: defaults.datasets.0.rejected: dpo learns from a better and a worse answer, and this dataset has one; name the column of the worse one",
        "my.yaml:5: defaults.fp16: no GPU that this run may use; leave it out: streams train on the CPU here, which computes in float32",
        "my.yaml:8: streams.b.bf16: `fp16: true` says otherwise; leave one of them out",
        "my.yaml:9: streams.c.engine: trl cannot train sft + lora with fp16: its trainers leave out each step whose gradients overflow; write shared, or leave it out",
        "my.yaml:10: streams.d.engine: trl cannot train dpo + lora with fp16: its trainers leave out each step whose gradients overflow; leave it out: `bf16: auto` takes float32 where a GPU has no bfloat16",
        "5 problems; nothing was started",
    ]
