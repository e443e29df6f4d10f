from __future__ import annotations

import pytest
import torch

from tests.trainer.loop import decoders
from tests.trainer.loop.recipes import FIVE, loop_of
from trainer.loop.dequantised import image_bytes, is_cached

TWO = {"rs": FIVE["rs"], "wide": FIVE["wide"]}


def test_a_4_bit_base_kept_unpacked_trains_as_one_that_is_unpacked_in_each_pass_and_is_4_bit_again_afterwards() -> None:
    trained = {}
    for way in ("step", "cached"):
        model = decoders.quantised(decoders.decoder())
        before = dict(model.named_modules())
        loop, kept, streams = loop_of(TWO, model, dequantise=way)
        layer = loop.layers.stacked["model.layers.0.mlp.up_proj"]
        assert (type(layer.base) is torch.nn.Linear) == (way == "cached")
        loop.run()
        loop.layers.remove()
        assert dict(model.named_modules()) == before
        trained[way] = kept, streams
    for name in TWO:
        assert trained["step"][0].losses(name) == pytest.approx(trained["cached"][0].losses(name), rel=5e-5)
        pairs = zip(*(streams[name].adapter.parameters() for _, streams in trained.values()), strict=True)
        for mine, other in pairs:
            torch.testing.assert_close(mine, other, rtol=1e-4, atol=1e-6)


def test_auto_keeps_what_is_small_beside_the_free_memory(monkeypatch) -> None:
    from trainer.loop import dequantised

    whole, packed = decoders.decoder(), decoders.quantised(decoders.decoder())
    elements = sum(
        module.weight.numel()
        for module in whole.modules()
        if type(module) is torch.nn.Linear and module is not whole.get_output_embeddings()
    )
    assert image_bytes(packed) == elements * 4
    assert image_bytes(whole) == 0
    for free, cached in ((16 * elements, True), (16 * elements - 1, False), (None, False)):
        monkeypatch.setattr(dequantised, "free_memory_bytes", lambda free=free: free)
        assert is_cached("auto", packed) == cached
    assert is_cached("cached", packed)
    assert not is_cached("step", packed)
