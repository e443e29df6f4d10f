"""Rows C04, C07, C12, C14, C15: control streams on the shared loop go as alone and as PEFT's hooks with torch's optimizers go."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from tests.trainer.control.saved import sites
from tests.trainer.loop import decoders
from tests.trainer.loop.recipes import FIVE, loop_of, recipe, same
from trainer.control.sites import FAMILIES
from trainer.control.tuner import ControlConfig
from trainer.data.tokens import IGNORED
from trainer.loop import folder
from trainer.loop.batches import Batches
from trainer.loop.certify import certify
from trainer.loop.classed import classed
from trainer.loop.decay import Decay
from trainer.loop.fusable import unfusable
from trainer.loop.head import NLL
from trainer.loop.recipe import Recipe

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")


def rows_of_classes(seed: int):
    """Of class 1, -1 and neutral in turn; what is not supervised is of class 0."""
    rows = decoders.rows(14, (6, 20), seed=seed)
    own = [(1, -1, 2, -2)[number % 4] for number in range(len(rows))]
    return [
        replace(row, classes=[one if label != IGNORED else 0 for label in row.labels])
        for row, one in zip(rows, own, strict=True)
    ]


def control(seed: int, site: str = "mlp", form: str = "full", linear: tuple[str, ...] = (), **changes) -> Recipe:
    model = decoders.decoder()
    config = ControlConfig(
        task_type="CAUSAL_LM", r=changes.pop("r", 4), lora_alpha=3, control_site=site, control_adapter_type=form,
        target_modules=[*sites(model, site), *linear], lora_dropout=changes.pop("dropout", 0.0),
    )  # fmt: skip
    batches = Batches(rows_of_classes(seed), micro_batch_size=1 + seed % 3, accumulation=1 + seed % 2, seed=seed)
    return recipe(0, config=config, batches=batches, seed=seed, loss=classed(NLL), **changes)


STREAMS = {
    "full": control(1, dropout=0.1),
    "block": control(2, "block", "symmetrise", recompute=True, decay=Decay("frobenius", 0.5, 0.2)),
    "anti": control(3, "mlp", "antisymmetrise", r=8, decay=Decay("l2", 0.5)),
    "spectral": control(4, "mlp", "spectral", decay=Decay("nuclear", 0.5, 0.05, gamma=0.5)),
    "neutral": control(6, "block", neutral=3.0, recompute=True),
    "both": control(5, linear=("q_proj", "down_proj"), dropout=0.05),
    "lora": FIVE["rs"],
}


@pytest.mark.parametrize("family", FAMILIES)
def test_each_family_trains_both_sites_in_one_pass_as_alone_and_as_with_peft(family) -> None:
    """Row C26; experts included, on which no LoRA shares a pass.  These and Gemma 2 compute in fp32 by themselves."""
    in_fp32 = family in {"mixtral", "qwen3_moe", "gemma2"}
    model = decoders.decoder(family, dtype=torch.float32 if in_fp32 else torch.float64)
    streams = {name: replace(STREAMS[name], recompute=False) for name in ("block", "anti")}
    assert unfusable(model, linears=False) is None
    for certificate in certify(model, streams, steps=2):
        assert certificate.holds, certificate


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_control_streams_of_every_kind_train_beside_lora_as_alone_and_as_with_peft(dtype) -> None:
    for certificate in certify(decoders.decoder(dtype=dtype), STREAMS):
        assert certificate.holds, certificate


def test_a_base_in_4_bits_is_certified_too() -> None:
    """Row C03."""
    for certificate in certify(decoders.quantised(decoders.decoder()), STREAMS, steps=4):
        assert certificate.holds, certificate


def test_q_stays_orthonormal_and_no_site_is_longer_than_allowed() -> None:
    loop, kept, streams = loop_of(STREAMS)
    loop.run()
    for pair in streams["spectral"].adapter.pairs.values():
        torch.testing.assert_close(pair.a @ pair.a.T, torch.eye(len(pair.a)), atol=1e-5, rtol=0)
    figures = kept.steps["spectral"][-1].figures
    assert figures["adapter_norm_max"] <= 0.05 * (1 + 1e-6)
    assert figures["adapter_orthogonality"] < 1e-4
    assert not kept.failures and "adapter_orthogonality" not in kept.steps["anti"][-1].figures


def test_two_control_streams_in_shared_passes_go_on_from_the_middle_of_an_epoch_with_the_same_bits(tmp_path) -> None:
    """Row C29: both were saved after the same step, so that their rows meet in the same passes again."""
    recipes = {name: STREAMS[name] for name in ("full", "anti")}
    loop, kept, through = loop_of(recipes)

    def at(stream, step) -> None:
        if step.step == 2:
            (tmp_path / stream.name).mkdir()
            folder.write(stream, tmp_path / stream.name)

    kept.at = at
    loop.run()
    again, resumed_kept, resumed = loop_of(recipes)
    for name, stream in resumed.items():
        folder.read(stream, tmp_path / name)
        assert stream.batches.epochs_after(2) % 1 > 0
    again.run()
    for name, stream in resumed.items():
        assert same(stream, through[name]), name
        assert [step.figures for step in resumed_kept.steps[name]] == [step.figures for step in kept.steps[name]][2:]


def test_each_class_has_its_loss_and_its_tokens_as_figures() -> None:
    loop, kept, _ = loop_of({"full": STREAMS["full"]})
    loop.run()
    for step in kept.steps["full"]:
        named = [name for name in ("toward", "away", "neutral") if f"tokens_{name}" in step.figures]
        counts = [step.figures[f"tokens_{name}"] for name in named]
        assert sum(counts) == step.figures["supervised"]
        whole = sum(step.figures[f"loss_{name}"] * count for name, count in zip(named, counts, strict=True))
        assert whole == pytest.approx(step.figures["loss"] * step.figures["supervised"], rel=1e-5)


def test_what_is_added_to_neutral_text_shrinks_where_it_counts() -> None:
    """Row C53."""
    norms = []
    for weight in (0.0, 100.0):
        loop, kept, _ = loop_of({"it": replace(STREAMS["neutral"], neutral=weight)})
        loop.run()
        norms.append(kept.steps["it"][-1].figures["loss"])
    assert norms[0] < norms[1]


def test_the_sign_of_a_class_is_what_tells_apart() -> None:
    """Row C14.  The same rows with no class below 0: another training."""
    rows = rows_of_classes(3)
    alike = [replace(row, classes=[abs(one) for one in row.classes]) for row in rows]
    found = []
    for each in (alike, rows):
        batches = Batches(each, micro_batch_size=1, seed=3)
        loop, _, streams = loop_of({"it": replace(STREAMS["anti"], batches=batches)})
        loop.run()
        found.append(next(iter(streams["it"].adapter.pairs.values())).b.detach().clone())
    assert not torch.allclose(*found)
