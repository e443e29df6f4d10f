"""Publication and promotion with real files: what an old holder, another's weights or a torn folder can do."""

from __future__ import annotations

import hashlib
import json
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event

import pytest

from swarm import events as ev
from swarm.artifacts import publish
from swarm.artifacts.lineage import lineage, rows
from swarm.artifacts.publish import PublishError
from swarm.model_card import card, kept_card
from swarm.rundir import RunFolder
from swarm.settings import RunSettings, StreamSettings
from swarm.state import State
from swarm.weights import adapter_sha256
from tests.swarm.story import SHA, Story, settings

RUN: RunSettings = settings("wide")
SETTINGS: StreamSettings = RUN.streams["wide"]


class Bench:
    """A stream whose checkpoints are files."""

    def __init__(self, path: Path) -> None:
        self.folder = RunFolder(path)
        self.story = Story("wide")
        self.story.prepared("wide")

    def weights(self, path: str, text: str) -> str:
        folder = self.folder.path / path
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "adapter_config.json").write_text("{}")
        (folder / "adapter_model.safetensors").write_text(text)
        return adapter_sha256(folder)

    def train(self, text: str, step: int = 9) -> int:
        tok = self.story.claim("wide/train", "trainer-1")
        path = f"streams/wide/t{tok}/checkpoint-{step}"
        sha256 = self.weights(path, text)
        self.story.checkpoint("wide", tok, step, sha256)
        facts = {"tok": tok, "path": path, "sha256": sha256, "base_sha256": "ba5e" * 4, "versions": "torch 9.9"}
        self.story.say("trainer-1", ev.Trained(ref="wide/train", step=step, trainable=1, **facts))  # type: ignore[arg-type]
        return tok

    @property
    def state(self) -> State:
        return self.story.state

    def publish(self, state: State | None = None) -> ev.Adapter:
        with publish.adapter(self.folder, state or self.state, "wide", SETTINGS) as event:
            return event

    def promote(self, why: str) -> ev.Promote:
        wished = ev.Promote(ref="wide", path="promoted", sha256=SHA, why=why, idem="k1", body="so be it")
        with publish.promotion(self.folder, self.state, wished, RUN, "ada") as event:
            return event


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path / "runs" / "demo")


def test_the_adapter_is_what_was_validated_and_says_where_it_comes_from(bench: Bench) -> None:
    tok = bench.train("good")
    bench.story.judged("wide")
    event = bench.publish()
    assert (event.tok, event.path) == (tok, "streams/wide/adapter")
    assert (bench.folder.path / event.path / "adapter_model.safetensors").read_text() == "good"
    told = json.loads((bench.folder.path / event.path / "lineage.json").read_text())
    assert (told["token"], told["sha256"], told["data_sha256"]) == (tok, event.sha256, SHA)
    assert told["verdict"]["by"] == "validator-1"
    assert told["base_model"] == "tiny-toon"
    assert not list((bench.folder.path / "streams/wide").glob(".adapter*"))


def test_weights_changed_after_their_validation_are_not_published_and_the_old_adapter_stays(bench: Bench) -> None:
    bench.train("good")
    bench.story.judged("wide")
    bench.story.say("coordinator", bench.publish())
    candidate = bench.state.streams["wide"].candidate
    assert candidate
    bench.weights(candidate.path, "what a paused holder wrote when it came back")
    with pytest.raises(PublishError, match="not those that were validated"):
        bench.publish()
    assert (bench.folder.path / "streams/wide/adapter/adapter_model.safetensors").read_text() == "good"


def test_a_link_out_of_the_run_is_not_published(bench: Bench, tmp_path_factory: pytest.TempPathFactory) -> None:
    bench.train("good")
    bench.story.judged("wide")
    candidate = bench.state.streams["wide"].candidate
    assert candidate
    elsewhere = tmp_path_factory.mktemp("elsewhere") / "checkpoint"
    (bench.folder.path / candidate.path).rename(elsewhere)
    (bench.folder.path / candidate.path).symlink_to(elsewhere)
    with pytest.raises(PublishError, match="leads out of the run folder"):
        bench.publish()


@pytest.mark.parametrize("name", ["adapter_model.safetensors", "adapter_config.json"])
def test_a_file_of_20_gb_is_refused_before_it_is_copied(bench: Bench, name: str) -> None:
    bench.train("good")
    bench.story.judged("wide")
    candidate = bench.state.streams["wide"].candidate
    assert candidate
    os.truncate(bench.folder.path / candidate.path / name, 20 << 30)
    with pytest.raises(PublishError, match="21,474,836,480 bytes"):
        bench.publish()
    assert sum(path.stat().st_blocks for path in bench.folder.path.rglob("*")) < 10_000, "nothing of it was written"


def test_a_linked_file_and_a_pickle_are_not_published(bench: Bench, tmp_path_factory: pytest.TempPathFactory) -> None:
    bench.train("good")
    bench.story.judged("wide")
    candidate = bench.state.streams["wide"].candidate
    assert candidate
    weights = bench.folder.path / candidate.path / "adapter_model.safetensors"
    elsewhere = tmp_path_factory.mktemp("elsewhere") / "weights"
    weights.rename(elsewhere)
    (weights.parent / "adapter_model.bin").write_text("good")
    with pytest.raises(PublishError, match="safetensors is missing"):
        bench.publish()
    weights.symlink_to(elsewhere)  # the right weights, but what stands there can be changed from outside
    with pytest.raises(PublishError, match="safetensors: is a symbolic link"):
        bench.publish()
    weights.unlink()
    elsewhere.rename(weights)
    bench.story.say("coordinator", bench.publish())
    published = bench.folder.path / "streams/wide/adapter"
    assert {path.name for path in published.iterdir()} == {
        "adapter_config.json",
        "adapter_model.safetensors",
        "lineage.json",
        "README.md",
    }


def test_a_lower_token_never_replaces_what_a_higher_one_has_published(bench: Bench) -> None:
    old = bench.train("old")
    bench.story.judged("wide")
    before = bench.state
    newer = bench.folder.path / "streams/wide/adapter"
    bench.weights("streams/wide/adapter", "new")
    (newer / "lineage.json").write_text(json.dumps({"stream": "wide", "token": old + 5}))
    with pytest.raises(PublishError, match=f"holds weights of token {old + 5}, newer than {old}"):
        bench.publish()
    for edited in ("torn by an editor", "[]", '"x"', '{"stream": "wide"}', '{"stream": "wide", "token": "x"}'):
        (newer / "lineage.json").write_text(edited)
        publish._fence(newer, {"stream": "wide", "token": old})
    stream = before.streams["wide"]
    stream.adapter = ev.Adapter(ref="wide", tok=old + 5, path="streams/wide/adapter", sha256=SHA)
    with pytest.raises(PublishError, match=f"token {old} is older than {old + 5}"):
        bench.publish(before)
    assert (newer / "adapter_model.safetensors").read_text() == "new"


def test_the_promoted_folder_is_fenced_and_whole_too(bench: Bench) -> None:
    tok = bench.train("good")
    bench.story.judged("wide")
    bench.story.say("coordinator", bench.publish())
    bench.story.say("ada", ev.Approve(ref="wide"))
    event = bench.promote("best")
    bench.story.say("coordinator", event)
    told = json.loads((bench.folder.promoted / "lineage.json").read_text())
    assert (told["approved"], told["promoted"], told["token"]) == (
        ["ada"],
        {"by": "ada", "why": "best", "forced": False, "version": "demo-v1"},
        tok,
    )
    assert (event.idem, event.body, event.tok, event.path) == ("k1", "so be it", tok, "promoted"), "as it was wished"
    (bench.folder.promoted / "lineage.json").write_text(json.dumps({"stream": "wide", "token": tok + 1}))
    with pytest.raises(PublishError, match="newer"):
        bench.promote("again")
    bench.weights("streams/wide/adapter", "changed")
    (bench.folder.promoted / "lineage.json").unlink()
    with pytest.raises(PublishError, match="not those that were validated"):
        bench.promote("again")
    assert (bench.folder.promoted / "adapter_model.safetensors").read_text() == "good"
    assert publish.intact(bench.folder, event.path, event.sha256) == "ok"
    assert publish.intact(bench.folder, "streams/wide/adapter", event.sha256) == "changed"
    assert publish.intact(bench.folder, "streams/gone", event.sha256) == "missing"


@pytest.mark.parametrize("can_exchange", [True, False])
def test_what_cannot_be_recorded_is_not_published(
    bench: Bench, can_exchange: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not can_exchange:
        monkeypatch.setattr(publish, "exchange", lambda one, other: False)
    bench.train("good")
    bench.story.judged("wide")
    placed = publish.adapter(bench.folder, bench.state, "wide", SETTINGS)
    with pytest.raises(OSError, match="disk full"), placed:
        raise OSError("disk full")
    assert not (bench.folder.path / "streams/wide/adapter").exists()
    bench.story.say("coordinator", bench.publish())
    bench.promote("first")
    wished = ev.Promote(ref="wide", path="promoted", sha256=SHA, why="second")
    placed_again = publish.promotion(bench.folder, bench.state, wished, RUN, "ada")
    with pytest.raises(OSError, match="disk full"), placed_again:
        assert json.loads((bench.folder.promoted / "lineage.json").read_text())["promoted"]["why"] == "second"
        raise OSError("disk full")
    assert json.loads((bench.folder.promoted / "lineage.json").read_text())["promoted"]["why"] == "first"
    assert not list(bench.folder.path.rglob(".*.staged*"))


def test_the_config_is_a_part_of_the_weights(bench: Bench) -> None:
    bench.train("good")
    bench.story.judged("wide")
    candidate = bench.state.streams["wide"].candidate
    assert candidate
    config = bench.folder.path / candidate.path / "adapter_config.json"
    config.write_text('{"lora_alpha": 1600}')
    with pytest.raises(PublishError, match="not those that were validated"):
        bench.publish()
    config.write_text("{}")
    event = bench.publish()
    (bench.folder.path / event.path / "adapter_config.json").write_text('{"lora_alpha": 1600}')
    assert publish.intact(bench.folder, event.path, event.sha256) == "changed"


def test_there_is_a_whole_adapter_at_any_moment_while_another_takes_its_place(bench: Bench) -> None:
    bench.train("good")
    bench.story.judged("wide")
    bench.story.say("coordinator", bench.publish())
    bench.promote("first")
    why, done = set(), Event()

    def read() -> None:
        while not done.is_set():
            why.add(json.loads((bench.folder.promoted / "lineage.json").read_text())["promoted"]["why"])

    with ThreadPoolExecutor(1) as pool:
        reading = pool.submit(read)
        for number in range(100):
            bench.promote(f"again {number}")
        done.set()
        reading.result()
    assert len(why) > 1
    assert not list(bench.folder.path.glob(".promoted*"))


def test_a_stream_that_went_back_says_so_in_its_lineage(bench: Bench) -> None:
    tok = bench.story.claim("wide/train", "trainer-1")
    first = bench.story.checkpoint("wide", tok, 3, bench.weights(f"streams/wide/t{tok}/checkpoint-3", "earlier"))
    bench.story.say("trainer-1", ev.Drop(ref="wide/train", tok=tok, why="killed"))
    bench.train("broken")
    bench.story.judged("wide", "FAIL")
    bench.story.back("wide", "FAIL: not finite")
    bench.story.judged("wide")
    event = bench.publish()
    assert (event.tok, event.sha256) == (tok, adapter_sha256(bench.folder.path / first))
    bench.story.say("coordinator", event)
    told = lineage("demo", bench.state, "wide", SETTINGS)
    assert told["back"]["why"] == "FAIL: not finite"
    assert len(told["rejected"]) == 1
    [row] = rows([told])
    assert (row["step"], row["token"], row["verdict"]) == (3, tok, "SUCCESS")


BESIDE = ("prompt.json", "tokenizer/tokenizer.json")


def prepared_with(bench: Bench, text: str, sealed: str) -> State:
    """The state after rows were prepared with these files, whose manifest seals the text `sealed`."""
    folder, state = bench.folder.path / "prepared/x", bench.state
    (folder / "tokenizer").mkdir(parents=True, exist_ok=True)
    for name in BESIDE:
        (folder / name).write_text(text)
    files = {name: {"sha256": hashlib.sha256(sealed.encode()).hexdigest()} for name in BESIDE}
    (folder / "manifest.json").write_text(json.dumps({"files": files}))
    sha256 = hashlib.sha256((folder / "manifest.json").read_bytes()).hexdigest()
    stream = state.streams["wide"]
    assert stream.prepared
    stream.prepared = stream.prepared.model_copy(update={"sha256": sha256})
    return state


def test_tokenizer_and_way_of_asking_stand_beside_the_adapter_as_they_were_sealed(bench: Bench) -> None:
    bench.train("good")
    bench.story.judged("wide")
    state = prepared_with(bench, "as sealed", "as sealed")
    state.streams["wide"].adapter = bench.publish(state)
    wished = ev.Promote(ref="wide", path="promoted", sha256=SHA, why="best")
    with publish.promotion(bench.folder, state, wished, RUN, "ada") as promoted:
        assert promoted.version and promoted.version.endswith("-v1")
    for place in ("streams/wide/adapter", "promoted"):
        for name in ("prompt.json", "tokenizer.json"):
            assert (bench.folder.path / place / name).read_text() == "as sealed"
    with pytest.raises(PublishError, match=r"prompt\.json is not the one that was prepared"):
        bench.publish(prepared_with(bench, "another", "as sealed"))
    assert (bench.folder.path / "streams/wide/adapter/prompt.json").read_text() == "as sealed"


def test_what_is_published_has_a_card_and_names_no_place_of_this_machine(bench: Bench, tmp_path: Path) -> None:
    """D29, X07."""
    bench.train("good")
    bench.story.judged("wide")
    here = str(tmp_path / "rows.jsonl")
    data = [SETTINGS.datasets[0].model_copy(update={"path": here})]
    with publish.adapter(bench.folder, bench.state, "wide", SETTINGS.model_copy(update={"datasets": data})) as event:
        pass
    place = bench.folder.path / event.path
    card, told = (place / "README.md").read_text(), json.loads((place / "lineage.json").read_text())
    assert told["settings"]["datasets"][0]["path"] == "rows.jsonl"
    assert (told["trained"]["base_sha256"], told["trained"]["versions"]) == ("ba5e" * 4, "torch 9.9")
    assert here not in card and here not in (place / "lineage.json").read_text()
    for part in (
        "## Data",
        "`rows.jsonl`",
        "## Method",
        "## Figures",
        "| held-out |",
        "## Licence and privacy",
        "# wide",
        f"SHA-256 of the base's weights: `{'ba5e' * 4}`.  Versions: torch 9.9.",
    ):
        assert part in card, card
    assert "publish this adapter only if those rows may be read by whoever gets it" in card
    assert "the licence of the training data and the adapter's own are for its author to state" in card


def test_the_card_of_an_adapter_on_top_of_another_says_that_it_holds_it() -> None:
    """G21."""
    trained = {"step": 3, "trainable": 7}
    alone, on_top = (
        card("wide", "tiny-toon", {"trained": trained | more}, "0" * 64) for more in ({}, {"start_sha256": "5eed"})
    )
    assert "It was trained on top of another adapter (SHA-256 `5eed`) and holds it: load it alone." in on_top
    assert "on top of" not in alone


def test_a_card_that_its_author_wrote_is_kept_and_one_of_ours_is_made_anew(bench: Bench) -> None:
    bench.train("good")
    bench.story.judged("wide")
    place = bench.folder.path / bench.publish().path
    assert kept_card(place) is None
    (place / "README.md").write_text("# Mine\n")
    assert kept_card(place) == "# Mine\n"


def test_a_card_shows_how_what_was_trained_is_loaded() -> None:
    """D01: of a pair each half has its own."""
    told = {
        "classify": ("text-classification", 'AutoModelForSequenceClassification.from_pretrained("b", num_labels=2)'),
        "contrastive": ("feature-extraction", 'AutoModelForMaskedLM.from_pretrained("b")'),
        "sft": ("text-generation", 'AutoModelForCausalLM.from_pretrained("b")'),
    }
    for method, (task, call) in told.items():
        labels = {"labels": ["x", "y"]} if method == "classify" else {}
        text = card("s", "b", {"settings": {"method": method, **labels}}, "0" * 64)
        assert f"pipeline_tag: {task}\n" in text and f"base = {call}\n" in text
