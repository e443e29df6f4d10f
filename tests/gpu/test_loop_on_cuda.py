"""What only a GPU can show of the shared loop: its kernels give what PEFT's do, the same bits where that is promised, and out of memory is survived."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from swarm.settings import StreamSettings
from tests.runs import swarm_process as sp
from tests.trainer import tiny
from tests.trainer.company import Company, same
from tests.trainer.conftest import Bench
from tests.trainer.loop import decoders
from tests.trainer.loop.recipes import FIVE, loop_of, recipe
from tests.trainer.loop.recipes import same as same_weights

torch = pytest.importorskip("torch")
DEVICE, GPU = "cuda", "gpu0"
ROOT = Path(__file__).parents[2]
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore:inner dimension:UserWarning"),  # bitsandbytes, of bases as small as these
]


# ---- as alone, and as PEFT -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["fp64", "fp32", "nf4"])
def test_five_streams_that_differ_in_everything_are_certified(kind: str) -> None:
    from trainer.loop.certify import certify

    model = decoders.decoder(dtype=torch.float64 if kind == "fp64" else torch.float32)
    certificates = certify(decoders.quantised(model, DEVICE) if kind == "nf4" else model.to(DEVICE), FIVE)
    assert {certificate.bound for certificate in certificates} == {{"fp64": 1e-12, "fp32": 2e-5, "nf4": 5e-5}[kind]}
    broken = [
        f"{each.stream} {each.against}: {each.loss:.1e} {each.worst[1]:.1e}" for each in certificates if not each.holds
    ]
    assert not broken


def distances(model, recipes, truth) -> dict[str, tuple[float, float]]:
    """Of the adapter from the one that fp32 gives, for the loop and for PEFT: norm of difference / norm, over all tensors of B."""
    from trainer.loop.certify import trained, trained_by_peft

    def distance(mine, true) -> float:
        pairs = [(mine[name].float(), true[name].float()) for name in true if "lora_B" in name]
        return math.sqrt(
            sum(float((a - b).square().sum()) for a, b in pairs) / sum(float(b.square().sum()) for _, b in pairs)
        )

    together = trained(model, recipes)
    return {
        name: (
            distance(together[name].tensors, truth[name].tensors),
            distance(trained_by_peft(model, one).tensors, truth[name].tensors),
        )
        for name, one in recipes.items()
    }


@pytest.mark.parametrize("kind", ["bf16", "nf4 computed in bf16"])
def test_in_bf16_streams_end_as_near_to_fp32_as_with_peft(kind: str) -> None:
    from trainer.loop.certify import trained_by_peft

    rounded = decoders.decoder(dtype=torch.bfloat16)
    if kind == "bf16":
        exact, model = decoders.decoder(dtype=torch.bfloat16).float().to(DEVICE), rounded.to(DEVICE)
    else:
        exact = decoders.quantised(decoders.decoder(dtype=torch.bfloat16).float(), DEVICE)
        model = decoders.quantised(rounded, DEVICE, torch.bfloat16)
    truth = {name: trained_by_peft(exact, one) for name, one in FIVE.items()}
    found = distances(model, FIVE, truth)
    print({name: tuple(round(value, 4) for value in pair) for name, pair in found.items()})
    for name, (ours, of_peft) in found.items():
        assert ours < 1.25 * of_peft + 0.01, (name, ours, of_peft)


def wide(dtype):
    """Large enough for the kernels that real bases get: heads of 64, rows of hundreds of tokens."""
    sizes = {
        "hidden_size": 256,
        "intermediate_size": 512,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 64,
    }
    return decoders.decoder("qwen2", dtype, max_position_embeddings=1024, **sizes)  # fmt: skip


def long_ones() -> dict[str, object]:
    """The five, on rows of 20 to 300 tokens and with the lightest of their optimizers' rates."""
    from trainer.loop.batches import Batches

    return {
        name: replace(
            one,
            batches=Batches(
                decoders.rows(12, (20, 300), seed=number),
                micro_batch_size=2 + number % 2,
                accumulation=1 + number % 2,
                seed=number,
            ),
        )
        for number, (name, one) in enumerate(FIVE.items())
    }


@pytest.mark.parametrize("kind", ["fp32", "bf16", "nf4"])
def test_exact_training_gives_the_same_bits_whoever_is_beside_it(kind: str) -> None:
    recipes = long_ones()

    def base():
        model = wide(torch.float32 if kind == "fp32" else torch.bfloat16)
        return decoders.quantised(model, DEVICE, torch.bfloat16) if kind == "nf4" else model.to(DEVICE)

    together, kept, streams = loop_of(recipes, base(), exact=True)
    together.run()
    for name in recipes:
        alone, kept_alone, streams_alone = loop_of({name: recipes[name]}, base(), exact=True)
        alone.run()
        assert kept.losses(name) == kept_alone.losses(name), name
        assert same_weights(streams[name], streams_alone[name]), name


def test_one_pass_for_all_stays_within_rounding_of_one_after_another_on_long_rows() -> None:
    recipes = long_ones()
    ends = {}
    for exact in (False, True):
        loop, kept, streams = loop_of(recipes, wide(torch.float32).to(DEVICE), exact=exact)
        loop.run()
        ends[exact] = kept, streams
    for name in recipes:
        assert ends[False][0].losses(name) == pytest.approx(ends[True][0].losses(name), rel=2e-5), name
        for mine, other in zip(*(ends[exact][1][name].adapter.parameters() for exact in (False, True)), strict=True):
            assert float((mine - other).detach().norm()) <= 1e-3 * float(other.detach().norm()), name


def test_a_dropout_mask_is_its_row_s_own_and_drops_the_share_that_was_asked() -> None:
    from trainer.loop.layer import draw_mask

    def drawn(batch: int, at: int, key: int) -> torch.Tensor:
        keep = torch.ones(batch, 60, 96, device=DEVICE)
        draw_mask(keep[at, :50], 0.25, key, 7)
        return keep[at, :50]

    assert torch.equal(drawn(1, 0, 3), drawn(5, 4, 3))
    assert not torch.equal(drawn(1, 0, 3), drawn(1, 0, 4))
    assert set(drawn(1, 0, 3).unique().tolist()) == {0.0, float(torch.tensor(1.0) / 0.75)}
    assert float((drawn(1, 0, 3) == 0).float().mean()) == pytest.approx(0.25, abs=0.03)


def test_activations_that_are_recomputed_give_the_same_training_in_less_memory() -> None:
    from trainer.loop.batches import Batches

    ends, peaks = [], []
    for recompute in (False, True):
        even = Batches(decoders.rows(8, (300, 300)), micro_batch_size=8)
        one = recipe(1, batches=even, recompute=recompute)  # with dropout
        loop, _, streams = loop_of({"one": one}, wide(torch.bfloat16).to(DEVICE), exact=True)
        torch.cuda.reset_peak_memory_stats()
        loop.run()
        ends.append(streams["one"])
        peaks.append(torch.cuda.max_memory_allocated())
    assert same_weights(*ends)
    assert peaks[1] < peaks[0]


# ---- memory ----------------------------------------------------------------------------------------------------------


def test_what_a_warm_group_s_streams_are_measured_to_take_is_what_the_next_ones_add_to_the_peak() -> None:
    from trainer.loop.batches import Batches
    from trainer.loop.memory import WARM_STEPS, WarmProbe

    even = Batches(decoders.rows(8, (300, 300)), micro_batch_size=4)
    one, peaks, own = recipe(0, batches=even, steps=100), {}, 0
    for count in (2, 4):
        loop, _, _ = loop_of({str(number): one for number in range(count)}, wide(torch.bfloat16).to(DEVICE))
        probe = WarmProbe(loop)
        for _ in range(WARM_STEPS):
            assert probe.tick() is None
            loop.tick()
        measured = probe.tick()
        assert measured and len(set(measured.values())) == 1
        own = sum(next(iter(measured.values())))
        torch.cuda.reset_peak_memory_stats()
        loop.tick()
        peaks[count] = torch.cuda.max_memory_allocated()
        loop.layers.remove()
        del loop, probe, measured
    assert (peaks[4] - peaks[2]) / 2 == pytest.approx(own, rel=0.1)


@pytest.fixture
def little_memory():
    """The device holds so many bytes more than it holds now."""

    def limit(more_bytes: int) -> None:
        torch.cuda.empty_cache()
        whole = torch.cuda.get_device_properties(0).total_memory
        torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_reserved() + more_bytes) / whole)

    yield limit
    torch.cuda.set_per_process_memory_fraction(1.0)
    torch.cuda.empty_cache()


def even_rows(count: int, length: int, size: int):
    from trainer.loop.batches import Batches

    return Batches(decoders.rows(count, (length, length)), micro_batch_size=size)


def test_a_pass_that_memory_does_not_hold_is_split_and_nobody_is_blamed(little_memory: Callable[[int], None]) -> None:
    many = {f"s{number}": recipe(number % 2, batches=even_rows(16, 512, 8), steps=2) for number in range(6)}
    loop, kept, _ = loop_of(many, wide(torch.float32).to(DEVICE))
    little_memory(400 << 20)
    loop.run()
    assert kept.splits
    assert not kept.failures
    assert set(kept.ends) == set(many)


def test_only_a_stream_whose_single_row_does_not_fit_is_blamed(little_memory: Callable[[int], None]) -> None:
    two = {
        "small": recipe(0, batches=even_rows(8, 64, 2)),
        "long": recipe(4, batches=even_rows(4, 16_000, 1)),
    }
    model = decoders.decoder("qwen2", hidden_size=256, intermediate_size=512, max_position_embeddings=16_384).to(DEVICE)
    loop, kept, _ = loop_of(two, model)
    little_memory(150 << 20)
    loop.run()
    assert list(kept.failures) == ["long"]
    assert "memory does not hold one row of 16000 tokens" in kept.failures["long"]
    assert kept.ends == {"small": "steps"}


def test_the_image_of_a_4_bit_base_is_its_own_weights_in_the_bytes_that_are_counted() -> None:
    from peft.utils.integrations import dequantize_module_weight

    from trainer.device import free_memory
    from trainer.loop.dequantised import image_bytes

    def trained(way: str):
        free_memory()
        model = decoders.quantised(wide(torch.bfloat16), DEVICE, torch.bfloat16)
        packed, packed_bytes = dict(model.named_modules()), image_bytes(model)
        before = torch.cuda.memory_allocated()
        loop, kept, _ = loop_of({"rs": FIVE["rs"], "wide": FIVE["wide"]}, model, dequantise=way)
        taken = torch.cuda.memory_allocated() - before
        for name, layer in loop.layers.stacked.items():
            if way == "cached":
                assert torch.equal(layer.base.weight, dequantize_module_weight(packed[name])), name
        loop.run()
        return kept, taken, packed_bytes

    (step, little, _), (cached, much, image) = trained("step"), trained("cached")
    assert image <= much - little <= 1.1 * image + (1 << 20)
    for name in ("rs", "wide"):
        assert step.losses(name) == pytest.approx(cached.losses(name), rel=2e-2)


# ---- groups, as a worker trains them ---------------------------------------------------------------------------------

FOUR: dict[str, dict[str, object]] = {
    "plain": {"lora_r": 4},
    "dora": {"use_dora": True, "lora_dropout": 0.1, "learning_rate": 2e-3},
    "wide": {"lora_r": 16, "lora_dropout": 0.2, "micro_batch_size": 2, "lr_scheduler": "cosine", "use_rslora": True},
    "slow": {"gradient_accumulation_steps": 3, "optimizer": "adamw_8bit", "gradient_checkpointing": True},
}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.save_base(tmp_path_factory.mktemp("base"))


@pytest.fixture
def make(base: Path, tmp_path: Path) -> Callable[..., StreamSettings]:
    rows = tmp_path / "doubles.jsonl"
    rows.write_text("".join(json.dumps({"prompt": f"double {n}", "completion": str(2 * n)}) + "\n" for n in range(60)))
    common = {
        "base_model": str(base), "datasets": [{"path": str(rows), "type": "prompt_completion"}], "max_steps": 6, "sequence_len": 64,
        "micro_batch_size": 4, "learning_rate": 5e-3, "warmup_ratio": 0.0, "save_steps": 3, "val_set_size": 12, "eval_rows": 4,
        "eval_max_new_tokens": 6, "eval_steps": 3, "save": "last", "engine": "shared", "exact": True,
    }  # fmt: skip
    return lambda **changes: StreamSettings.model_validate({**common, **changes})


@pytest.fixture
def company(tmp_path: Path, make: Callable[..., StreamSettings]) -> Callable[[str], Company]:
    def made(name: str) -> Company:
        bench = Bench(tmp_path / name)
        bench.do("prepare", make())
        return Company(tmp_path / name, bench.prepared, GPU)

    return made


@pytest.mark.parametrize("adapter", ["lora", "qlora"])
def test_a_group_goes_on_from_its_checkpoints_bit_for_bit(
    company: Callable[[str], Company], make: Callable[..., StreamSettings], adapter: str
) -> None:
    through, again = company("through"), company("again")
    for name, own in FOUR.items():
        through.come(name, make(adapter=adapter, **own))
    through.train()
    assert set(through.errors.values()) == {None}
    for name, own in FOUR.items():
        saved = next(event for event in through.events[name] if event.kind == "checkpoint")
        again.place.stream_folder(name).mkdir(parents=True)
        (through.place.run_folder / saved.path).rename(again.place.stream_folder(name) / "checkpoint-3")
        again.come(name, make(adapter=adapter, **own), resume_from=[f"streams/{name}/checkpoint-3"])
    again.train()
    for name in FOUR:
        assert same(again.weights(name), through.weights(name)), name
        assert again.losses[name] == through.losses[name][3:]
        assert 0 < through.last(name, "trained").figures["peak_bytes"] < 2e9


def test_the_held_out_loss_of_a_group_is_that_of_its_validator_on_the_gpu(
    company: Callable[[str], Company], make: Callable[..., StreamSettings]
) -> None:
    group = company("group")
    for name, own in FOUR.items():
        group.come(name, make(**own))
    group.train()
    bench = Bench(group.place.run_folder)
    bench.place, bench.prepared = group.place, group.prepared
    [prepared] = group.prepared
    bench.place.stream_folder("one").mkdir(parents=True)
    for name, own in FOUR.items():
        trained = group.last(name, "trained")
        judged = {"prepared": prepared, "checkpoint": trained.path, "sha256": trained.sha256}
        verdict = bench.do("validate", make(**own), figures=trained.figures, **judged)["verdict"]
        assert verdict.result == "SUCCESS", verdict.why
        assert verdict.figures["eval_loss"] == pytest.approx(trained.figures["eval_loss"], rel=0.01)
        score = bench.do("evaluate", make(**own), **judged)["score"]
        assert score.figures["eval_loss"] == pytest.approx(verdict.figures["eval_loss"], abs=1e-3)


def optimizers() -> list[str]:
    from swarm import kinds

    return [
        name for name in kinds.installed("optimizer") if "paged" not in name
    ]  # managed memory is shared with others


@pytest.mark.parametrize("optimizer", optimizers())
def test_every_optimizer_steps_two_streams_of_a_group(
    company: Callable[[str], Company], make: Callable[..., StreamSettings], optimizer: str
) -> None:
    group = company("group")
    for name, rank in (("one", 4), ("two", 8)):
        group.come(name, make(optimizer=optimizer, lora_r=rank, max_steps=4, learning_rate=1e-3))
    group.train()
    assert group.errors == {"one": None, "two": None}  # each was audited at its first step
    for name in ("one", "two"):
        assert group.losses[name][-1] < 20


# ---- whole runs and commands -----------------------------------------------------------------------------------------


def test_certify_holds_on_the_gpu() -> None:
    done = sp.swarm(
        "certify", "configs/certify.yaml", "--device", GPU, "--steps", "4", "--json", cwd=ROOT, check=None, timeout=250
    )
    assert done.stdout, done.stderr
    rows = json.loads(done.stdout)
    print([(row["stream"], row["against"], f"{row['loss']:.0e}", f"{row['weights']:.0e}") for row in rows])
    assert done.returncode == 0, done.stderr
    assert len(rows) == 2 * 7


def test_a_run_of_four_kinds_trains_judges_promotes_and_answers_on_the_gpu(tmp_path: Path) -> None:
    streams = "  lora: {lora_r: 4}\n  wide: {lora_r: 8}\n  dora: {use_dora: true, lora_r: 4}\n  qlora: {adapter: qlora, lora_r: 4}"
    config = sp.write_config(tmp_path, streams=streams, steps=20)
    planned = json.loads(sp.swarm("plan", config.name, "--json", cwd=tmp_path).stdout)
    assert "gpu0" in json.dumps(planned)
    sp.swarm("run", config.name, cwd=tmp_path)
    status = json.loads(sp.swarm("status", "--json", cwd=tmp_path).stdout)
    assert status["promoted"]
    assert len(status["streams"]) == 4
    for worker in status["workers"]:
        print(worker)
    [run] = (tmp_path / "runs").iterdir()
    promoted = str(run / "promoted")
    measured = json.loads(
        sp.swarm(
            "eval", promoted, "--data", "held.jsonl", "--device", GPU, "--rows", "4", "--json", cwd=tmp_path
        ).stdout
    )
    on_cpu = json.loads(
        sp.swarm(
            "eval", promoted, "--data", "held.jsonl", "--device", "cpu", "--rows", "4", "--json", cwd=tmp_path
        ).stdout
    )
    for gpu, cpu in zip(measured["figures"], on_cpu["figures"], strict=True):
        assert gpu["eval_loss"] == pytest.approx(cpu["eval_loss"], rel=0.05)
    assert "adapter:" in sp.swarm("ask", "say 3", "--device", GPU, cwd=tmp_path).stdout
