from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model

from swarm.errors import UserError
from tests.trainer.loop import decoders
from tests.trainer.loop.recipes import FIVE, loop_of, same
from trainer.loop import folder
from trainer.loop.adapter import Layers
from trainer.loop.plan import Pass, Plan, Row

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")
FUSED = replace(FIVE["rs"], optimizer=lambda values: torch.optim.AdamW(values, lr=1e-3, fused=True))


@pytest.mark.parametrize("nf4", [False, True])
def test_streams_go_on_from_their_folders_bit_for_bit(tmp_path, nf4) -> None:
    recipes = {**FIVE, "rs": FUSED}

    def base():
        return decoders.quantised(decoders.decoder()) if nf4 else decoders.decoder()

    loop, kept, through = loop_of(recipes, base(), exact=True)

    def at(stream, step) -> None:
        if step.step == 2:
            (tmp_path / stream.name).mkdir()
            folder.write(stream, tmp_path / stream.name)

    kept.at = at
    loop.run()
    again, resumed_kept, resumed = loop_of(recipes, base(), exact=True)
    for name, stream in resumed.items():
        folder.read(stream, tmp_path / name)
        assert stream.step == 2
    again.layers.stack([stream.adapter for stream in again.streams])  # norms of DoRA are those of the weights read
    again.run()
    for name, stream in resumed.items():
        assert same(stream, through[name]), name
        assert resumed_kept.losses(name) == kept.losses(name)[2:]


@pytest.mark.parametrize(("family", "name"), [("llama", "dora"), ("gpt2", "wide"), ("llama", "rs")])
def test_peft_loads_the_folder_and_computes_the_same_logits(tmp_path, family, name) -> None:
    loop, _, streams = loop_of({name: replace(FIVE[name], recompute=False)}, decoders.decoder(family))
    loop.tick()
    loop.tick()
    folder.write(streams[name], tmp_path) if streams[name].window is None else None
    while not (tmp_path / "adapter_model.safetensors").exists():
        loop.tick()
        if streams[name].window is None:
            folder.write(streams[name], tmp_path)
    streams[name].adapter.config.lora_dropout = 0
    row = [5, 9, 11, 40, 3]
    for pair in streams[name].adapter.pairs.values():
        pair.dropout = 0
    with torch.no_grad(), loop.plan.running(Pass.of([Row(0, row, row)], torch.device("cpu"))):
        mine = loop.head.logits(loop.head.hidden(torch.tensor([row]))[0])
    theirs = PeftModel.from_pretrained(decoders.decoder(family).eval(), str(tmp_path))(
        input_ids=torch.tensor([row])
    ).logits[0]
    torch.testing.assert_close(mine, theirs, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("missing", ["optimizer.pt", "stream.pt", "adapter_model.safetensors"])
def test_a_folder_without_one_of_its_files_is_refused(tmp_path, missing) -> None:
    _, _, streams = loop_of({"small": FIVE["small"]})
    folder.write(streams["small"], tmp_path)
    (tmp_path / missing).unlink()
    with pytest.raises(UserError, match=missing):
        folder.read(streams["small"], tmp_path)


def test_an_adapter_of_other_settings_is_refused_by_name(tmp_path) -> None:
    _, _, streams = loop_of({"small": FIVE["small"], "dora": FIVE["dora"]})
    folder.write(streams["dora"], tmp_path)
    with pytest.raises(UserError, match="lora_magnitude_vector is on one side only"):
        folder.read(streams["small"], tmp_path)


@pytest.mark.parametrize("targets", ["all-linear", ["q_proj", "down_proj"], "every", r".*\.q_proj"], ids=str)
def test_its_config_names_the_layers_as_peft_does(targets) -> None:
    base = decoders.decoder(num_hidden_layers=3)  # 21 linear layers: PEFT shortens lists of 20 and more
    if targets == "every":
        targets = [
            name for name, module in base.named_modules() if isinstance(module, torch.nn.Linear) and name != "lm_head"
        ]
    config = LoraConfig(task_type="CAUSAL_LM", target_modules=targets)
    mine = Layers(base, Plan()).adapter(config, 0).config.target_modules
    assert mine == get_peft_model(base, config).peft_config["default"].target_modules
