"""A config of another tool becomes ours: read back it trains the same, and whatever has no equal is said or refused."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from swarm.cli import app
from swarm.config import load, tomlfile, yamlfile
from swarm.config.importers import TOOLS, imported
from swarm.config.importers.rules import Foreign
from swarm.config.importers.trl import TOOL as TRL
from swarm.config.tree import Problems
from swarm.errors import UserErrors
from swarm.settings import StreamSettings
from tests.swarm.config.test_keys_of_other_tools import AXOLOTL, LLAMA_FACTORY

AXOLOTL_FILE = """\
base_model: org/base
load_in_8bit: false
load_in_4bit: true
adapter: qlora
datasets:
  - {path: data/alpaca.jsonl, type: alpaca, ds_type: json}
  - {path: data/chats.jsonl, type: chat_template, field_messages: conversations, message_property_mappings: {role: from, content: value}}
  - path: data/pairs.jsonl
    type: {field_instruction: question, field_output: answer, format: "{instruction}"}
  - {path: org/stories, type: completion, field: story, shards: 10}
val_set_size: 0.1
sequence_len: 2048
lora_r: 32
lora_alpha: 24
lora_dropout: 0.1
lora_target_linear: true
gradient_accumulation_steps: 4
micro_batch_size: 3
num_epochs: 4
optimizer: adamw_bnb_8bit
learning_rate: 3e-4
bf16: auto
tf32: false
warmup_ratio: 0.1
evals_per_epoch: 4
flash_attention: true
deepspeed: zero2.json
special_tokens: {pad_token: "<|end|>"}
trust_remote_code: true
hub_token: hf_abcdefghijklmnopqrstuvwx
"""
TRL_FILE = """\
model_name_or_path: org/base
dataset_name: data/chats.jsonl
use_peft: true
lora_r: 12
lora_target_modules: [q_proj, v_proj]
learning_rate: 3.0e-4
per_device_train_batch_size: 4
max_length: 768
max_steps: -1
num_train_epochs: 2
eval_strategy: steps
eval_steps: 100
lr_scheduler_type: cosine
report_to: none
output_dir: out
"""
LLAMA_FACTORY_FILE = """\
model_name_or_path: org/base
stage: sft
finetuning_type: lora
lora_rank: 12
lora_target: all
quantization_bit: 4
dataset: identity, chats
template: qwen
cutoff_len: 1024
mask_history: true
per_device_train_batch_size: 1
gradient_accumulation_steps: 8
learning_rate: 1.0e-4
num_train_epochs: 3.0
lr_scheduler_type: cosine
warmup_ratio: 0.1
bf16: true
val_size: 0.1
overwrite_cache: true
plot_loss: true
output_dir: saves/lora
"""
INFO = {
    "identity": {"file_name": "alpaca.jsonl"},
    "chats": {"file_name": "chats.jsonl", "formatting": "sharegpt", "columns": {"messages": "conversations"}},
    "ranked": {"file_name": "a.jsonl", "ranking": True, "columns": {"prompt": "instruction", "query": "input", "chosen": "good", "rejected": "bad"}},
    "judged": {"file_name": "a.jsonl", "ranking": True, "formatting": "sharegpt",
               "columns": {"messages": "conversations", "chosen": "good", "rejected": "bad"}},
    "texts": {"file_name": "a.jsonl", "columns": {"prompt": "body"}},
    "led": {"file_name": "a.jsonl", "columns": {"prompt": "q", "response": "a", "system": "lead"}},
    "tools": {"hf_hub_url": "org/tools", "split": "dev", "formatting": "sharegpt", "columns": {"messages": "turns", "tools": "functions"},
              "tags": {"role_tag": "role", "content_tag": "content", "user_tag": "user", "assistant_tag": "assistant"}},
}  # fmt: skip
AIROAD_FILE = """\
base_model: org/base
dataset_path: data/chats.jsonl
system_prompt: Be brief.
output_dir: adapters
max_steps: 60
learning_rate: 6e-5
batch_size: 1
grad_accum: 8
max_seq_len: 768
print_every_steps: 5
max_minutes: 10
ablate_examples: 0
lora_r: 12
lora_alpha: 32
use_dora: true
log_wandb: false
early_stop_patience: 3
early_stop_window: 2
"""
AIROAD_PAIRS = AIROAD_FILE.replace("dataset_path: data/chats.jsonl", "pairs_path: data/pairs.jsonl")
PIPE_LITE_FILE = """\
model_dir = "org/base"
output_dir = "out"
lora_rank = 16
lora_dropout = 0.0
load_in_4bit = true
lr = 2e-5
epochs = 3
gradient_accumulation_steps = 16
sequence_len = 1024
eval_fraction = 0.02
max_checkpoints = 3
pipeline_stages = 1
sequence_prefix = ""
document_suffix = [2, 3]
mask_tokens = true
mix_datasets = true
drop_tails = true
max_sequences = 500
[[datasets]]
dataset_path = "data/*.jsonl"
max_tokens = 1000
"""
CONTROL_FILE = """\
model_dir = "org/base"
output_dir = "out"
use_control_adapters = true
load_in_4bit = true
lora_rank = 8
lora_weight_dtype = "bfloat16"
control_adapter_type = "symmetrise"
layers_to_transform = "0:21"
lora_weight_decay = 10.0
lora_weight_decay_type = "nuclear"
lr = 2e-5
gradient_accumulation_steps = 61
sequence_len = 4096
evals_per_run = 6
checkpoint_interval_hours = 2
max_checkpoints = 0
[[datasets]]
dataset_path = "data/glad/*.txt"
control_class = 1
[[datasets]]
dataset_path = "data/sad/*.txt"
control_class = -1
"""
DATASETS_OF_CONTROL = CONTROL_FILE[CONTROL_FILE.index("[[datasets]]") :]
FILES = {
    "axolotl.yml": (AXOLOTL_FILE, {
        "base_model": "org/base", "adapter": "qlora", "lora_r": 32, "lora_alpha": 24, "lora_dropout": 0.1, "lora_target_modules": "all-linear",
        "sequence_len": 2048, "micro_batch_size": 3, "gradient_accumulation_steps": 4, "num_epochs": 4, "learning_rate": 3e-4, "warmup_ratio": 0.1,
        "val_set_size": 0.1, "optimizer": "adamw_8bit", "lr_scheduler": "cosine", "seed": 42, "trust_remote_code": False,
    }),
    "trl.yaml": (TRL_FILE, {
        "base_model": "org/base", "adapter": "lora", "lora_r": 12, "lora_alpha": 32, "lora_dropout": 0.05, "lora_target_modules": ["q_proj", "v_proj"],
        "learning_rate": 3e-4, "micro_batch_size": 4, "sequence_len": 768, "num_epochs": 2, "max_steps": None, "eval_steps": 100,
        "lr_scheduler": "cosine", "gradient_checkpointing": True, "logging_steps": 10, "warmup_ratio": 0.0,
    }),
    "llamafactory.yaml": (LLAMA_FACTORY_FILE, {
        "base_model": "org/base", "method": "sft", "adapter": "qlora", "lora_r": 12, "lora_alpha": 24, "lora_target_modules": "all-linear", "sequence_len": 1024,
        "micro_batch_size": 1, "gradient_accumulation_steps": 8, "learning_rate": 1e-4, "num_epochs": 3, "lr_scheduler": "cosine", "warmup_ratio": 0.1,
        "bf16": True, "val_set_size": 0.1, "train_on": "last",
    }),
    "airoad.yaml": (AIROAD_FILE, {
        "base_model": "org/base", "lora_r": 12, "lora_alpha": 32, "lora_dropout": 0.05, "use_dora": True, "micro_batch_size": 1,
        "gradient_accumulation_steps": 8, "sequence_len": 768, "max_steps": 60, "learning_rate": 6e-5, "logging_steps": 5, "max_minutes": 10,
        "plateau_patience": 3, "plateau_window": 2,
    }),
    "pipe.toml": (PIPE_LITE_FILE, {
        "base_model": "org/base", "adapter": "qlora", "lora_r": 16, "lora_alpha": 4, "learning_rate": 2e-5, "num_epochs": 3, "micro_batch_size": 1,
        "gradient_accumulation_steps": 16, "sequence_len": 1024, "val_set_size": 0.02, "save_total_limit": 3, "save_hours": 1, "evals_per_run": 11,
        "optimizer": "adam", "beta2": 0.99, "lr_scheduler": "rms_ratio", "sequence_prefix": "", "mask_tokens": True, "mix_datasets": True,
        "drop_tails": True, "max_sequences": 500,
    }),
}  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "data").mkdir()
    for name, row in {
        "alpaca": {"instruction": "a", "input": "", "output": "b"},
        "chats": {"conversations": [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]},
        "pairs": {"question": "a", "answer": "b"},
    }.items():
        (tmp_path / f"data/{name}.jsonl").write_text(json.dumps(row) + "\n", encoding="utf-8")
    (tmp_path / "data/dataset_info.json").write_text(json.dumps(INFO))
    return tmp_path


def taken(folder: Path, text: str, name: str = "other.yaml", target: str = "ours/my.yaml") -> str:
    (folder / name).write_text(text, encoding="utf-8")
    path = folder / target
    path.parent.mkdir(exist_ok=True)

    def read(made: str) -> object:
        path.write_text(made, encoding="utf-8")
        return load(path, cwd=folder, files=False)

    return imported(Path(name), folder, Path(target), read)


def stream(folder: Path, text: str, name: str = "other.yaml") -> StreamSettings:
    """The one stream of the config that comes of it, read as any config is."""
    taken(folder, text, name)
    (only,) = load(folder / "ours/my.yaml", cwd=folder, files=False).run.streams.values()
    return only


@pytest.mark.parametrize("name", FILES)
def test_a_config_that_was_written_for_another_tool_trains_the_same_here(folder: Path, name: str) -> None:
    text, expected = FILES[name]
    found = stream(folder, text, name).model_dump()
    assert {key: found[key] for key in expected} == expected


def test_datasets_are_found_from_the_new_place_with_their_type_and_columns(folder: Path) -> None:
    found = [one.model_dump() for one in stream(folder, AXOLOTL_FILE).datasets]
    assert [one["path"] for one in found] == [
        "../data/alpaca.jsonl",
        "../data/chats.jsonl",
        "../data/pairs.jsonl",
        "org/stories",
    ]
    assert [one["type"] for one in found] == ["alpaca", "chatml", "prompt_completion", "text"]
    assert found[1]["messages"] == "conversations" and found[3]["text"] == "story"
    assert (found[2]["prompt"], found[2]["completion"]) == ("question", "answer")
    found = [one.model_dump() for one in stream(folder, LLAMA_FACTORY_FILE).datasets]
    assert [(one["path"], one["type"]) for one in found] == [
        ("../data/alpaca.jsonl", "alpaca"),
        ("../data/chats.jsonl", "chatml"),
    ]
    (dev,) = stream(folder, AIROAD_FILE + "dev_path: data/pairs.jsonl\n").test_datasets
    assert (dev.path, dev.type) == ("../data/pairs.jsonl", "chatml")
    assert stream(folder, PIPE_LITE_FILE, "pipe.toml").datasets[0].path == "../data/*.jsonl"
    documents = stream(folder, PIPE_LITE_FILE, "pipe.toml").datasets[0]
    assert (documents.type, documents.document_suffix, documents.max_tokens) == ("document", [2, 3], 1000)


def test_the_toml_of_control_adapters_is_a_config_of_ours_with_the_classes_of_its_datasets(folder: Path) -> None:
    """C52, X08."""
    found = stream(folder, CONTROL_FILE, "control.toml")
    expected = {
        "base_model": "org/base", "adapter": "qcontrol", "lora_r": 8, "lora_alpha": 3, "control_site": "block", "control_adapter_type": "symmetrise",
        "layers_to_transform": "0:21", "lora_weight_decay": 10.0, "lora_weight_decay_type": "nuclear", "learning_rate": 2e-5, "evals_per_run": 6,
        "save_hours": 2, "save_total_limit": 0, "gradient_accumulation_steps": 61, "lr_scheduler": "rms_ratio",
    }  # fmt: skip
    assert {key: found.model_dump()[key] for key in expected} == expected
    assert [(one.type, one.control_class) for one in found.datasets] == [("document", 1), ("document", -1)]
    assert "lora_weight_dtype: bfloat16 (control adapters are held in float32)" in (folder / "ours/my.yaml").read_text()


@pytest.mark.parametrize(
    ("keys", "adapter"),
    [
        ("full_fine_tune = true", "full"),
        ("lora_rank = 4\ntarget_modules = ['q_proj']", "lora"),
        ("lora_rank = 4\nload_in_4bit = true", "qlora"),
    ],
)
def test_the_shortest_toml_of_that_system_is_known_as_its_own(folder: Path, keys: str, adapter: str) -> None:
    """X08: what a dataset cannot limit there is left out with the reason."""
    text = f"""
    model_dir = 'org/base'
    output_dir = './out'
    {keys}
    lr = 2e-5
    sequence_len = 64
    [[datasets]]
    dataset_path = 'data/glad/*.txt'
    max_sequences = 25757
    drop_tails = true
    """
    found = stream(folder, text.replace("    ", ""), "short.toml")
    assert (found.adapter, found.learning_rate, found.max_sequences, found.drop_tails) == (adapter, 2e-5, None, False)
    written = (folder / "ours/my.yaml").read_text()
    assert written.count("of a dataset it changes nothing there") == 2


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("lora_rank = 8", "lora_rank = '8'", "lora_rank: here defaults.lora_r: expected a whole number of at least 1, got '8'"),
        ("lora_rank = 8", "lora_rank = -4", "lora_rank: here defaults.lora_r: expected a whole number of at least 1, got -4"),
        ("sequence_len = 4096", "sequence_len = 4096\npipeline_stages = 2", "pipeline_stages: a model over several GPUs is not trained; write pipeline_stages = 1"),
        ('dataset_path = "data/sad/*.txt"\n', "", "datasets.1: has no dataset_path; name its files"),
        ('"data/sad/*.txt"', '["a.txt", "b.txt"]', "datasets.1.dataset_path: is no path or pattern; write a [[datasets]] for each"),
        (DATASETS_OF_CONTROL, "[datasets]\n", "datasets: is no list of tables; write a [[datasets]] for each"),
    ],
)  # fmt: skip
def test_what_is_wrong_in_a_toml_file_is_said_of_the_key_that_has_it(
    folder: Path, old: str, new: str, told: str
) -> None:
    """X08."""
    assert old in CONTROL_FILE
    with pytest.raises(UserErrors) as caught:
        taken(folder, CONTROL_FILE.replace(old, new), "control.toml")
    assert told in str(caught.value)


def test_a_toml_file_with_keys_of_ours_is_a_config_as_it_is(folder: Path) -> None:
    """X08: with settings under `defaults`, as in YAML."""
    text = """
    name = "steered"
    [defaults]
    base_model = "tiny-toon"
    adapter = "control"
    lora_r = 4
    learning_rate = 2e-5
    evals_per_run = 5
    [[defaults.datasets]]
    path = "data/glad/*.txt"
    type = "document"
    [[defaults.datasets]]
    path = "data/sad/*.txt"
    type = "document"
    control_class = -1
    [streams.one]
    """
    (folder / "ours.toml").write_text(text, encoding="utf-8")
    found = load(folder / "ours.toml", cwd=folder, files=False).run.streams["one"]
    assert (found.adapter, found.lora_r, [one.control_class for one in found.datasets]) == ("control", 4, [1, -1])


def test_a_prompt_of_axolotls_users_own_making_is_our_template(folder: Path) -> None:
    own = (
        '{field_instruction: question, field_input: facts, field_output: answer, format: "Q: {instruction} ({input})"}'
    )
    text = AXOLOTL_FILE.replace('{field_instruction: question, field_output: answer, format: "{instruction}"}', own)
    found = stream(folder, text).datasets[2]
    assert (found.prompt, found.completion, found.prompt_template) == ("question", "answer", "Q: {question} ({facts})")


def test_an_adapter_on_top_of_another_is_one_here_too_and_going_on_with_one_is_refused(folder: Path) -> None:
    """G21: LLaMA-Factory's create_new_adapter."""
    (folder / "first").mkdir()
    below = LLAMA_FACTORY_FILE + "\nadapter_name_or_path: first\n"
    assert vars(stream(folder, below + "create_new_adapter: true\n"))["start_adapter"] == "../first"
    with pytest.raises(UserErrors, match="going on with another adapter has no equal here"):
        taken(folder, below)


def test_half_precision_and_a_run_without_a_name_are_what_they_say(folder: Path) -> None:
    """G19."""
    assert stream(folder, LLAMA_FACTORY_FILE.replace("bf16: true", "fp16: true")).fp16
    assert not stream(folder, RANKED + "pref_beta: 0.3\nfp16: true\n").fp16, "the shared engine has no preferences"
    made = taken(folder, AXOLOTL_FILE + "wandb_name:\n")
    assert "name: other" in made
    assert "name: none" not in made


def test_a_limit_of_llama_factory_is_that_of_each_dataset(folder: Path) -> None:
    assert [one.limit for one in stream(folder, LLAMA_FACTORY_FILE + "max_samples: 50\n").datasets] == [50, 50]


def test_every_key_stands_in_the_new_file_as_a_setting_a_reason_or_off(folder: Path) -> None:
    for name, (text, _) in FILES.items():
        made = taken(folder, text, name)
        keys = re.findall(r"^(?:\[\[)?([a-z_0-9]+)", text.partition("dataset_path =")[0], re.MULTILINE)
        assert [key for key in keys if not re.search(rf"[#,] {key}\b|^#   .*\b{key}\b", made, re.MULTILINE)] == [], made


def test_what_has_no_equal_is_kept_with_the_reason_and_secrets_are_not(folder: Path) -> None:
    made = taken(folder, AXOLOTL_FILE)
    assert re.search(
        r"^#   deepspeed: zero2.json \(every stream trains in a process on one device\)", made, re.MULTILINE
    )
    assert "#   datasets.3.shards (" in made
    assert "hub_token: ***" in made and "hf_abc" not in made


@pytest.mark.parametrize("name", FILES)
def test_code_that_a_model_brings_is_never_run_for_another_tools_word(folder: Path, name: str) -> None:
    text = FILES[name][0]
    text = (
        f"trust_remote_code = true\n{text}"
        if name.endswith("toml")
        else f"{text.replace('trust_remote_code: true', '')}\ntrust_remote_code: true\n"
    )
    made = taken(folder, text, name)
    assert stream(folder, text, name).trust_remote_code is False
    assert "#   trust_remote_code: true (running the code that a model brings is decided here anew" in made


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (AXOLOTL_FILE + "learnig_rate: 1\n", r":\d+: learnig_rate: no key of axolotl is known by this name"),
        (AXOLOTL_FILE.replace("type: alpaca", "type: pygmalion"), r":6: datasets.0.type: the prompt strategy 'pygmalion' has no equal here"),
        (AXOLOTL_FILE.replace("type: alpaca", "type: llama3.ultra") + "rl: kto\n", r":6: datasets.0.type: rows of one answer, liked or not, are not read"),
        (AXOLOTL_FILE.replace("path: data/alpaca.jsonl, ", ""), r":6: datasets.0: has no path; name its file"),
        (TRL_FILE + "beta: 0.1\nlabel_smoothing: 0.1\n", r":17: label_smoothing: the loss of preferences is computed without"),
        (TRL_FILE + "beta: 0.1\nf_divergence_type: js_divergence\n", r":17: f_divergence_type: the divergence 'js_divergence' is not computed"),
        (AXOLOTL_FILE.replace("adapter: qlora", "adapter: relora"), r":3: load_in_4bit: a base in 4 bits without an adapter"),
        (AXOLOTL_FILE.replace("adamw_bnb_8bit", "galore_adamw"), r":20: optimizer: here defaults.optimizer: "),
        (TRL_FILE + "lora_modules_to_save: [lm_head]\n", r":16: lora_modules_to_save: whole layers"),
        (LLAMA_FACTORY_FILE.replace("identity, chats", "identity, none"), r":7: dataset: the dataset 'none' does not stand in .*dataset_info.json"),
        (LLAMA_FACTORY_FILE.replace("stage: sft", "stage: ppo"), r":2: stage: the stage 'ppo' has no equal here"),
        ("name: a\nstreams: {one: {}}\n", r"streams: is a config of this program already"),
        ("colour: red\n", r"has no key by which a tool is known"),
    ],
)  # fmt: skip
def test_what_would_train_otherwise_is_refused_at_its_line_and_nothing_is_written(
    folder: Path, text: str, problem: str
) -> None:
    with pytest.raises(UserErrors) as caught:
        taken(folder, text)
    assert re.search(problem, str(caught.value)), str(caught.value)
    assert str(caught.value).endswith("nothing was written")


SHORT_AXOLOTL = """\
base_model: org/base
datasets: [{path: data/pairs.jsonl, type: {field_instruction: question, field_output: answer}}]
adapter: lora
micro_batch_size: 2
learning_rate: 1e-4
"""
SHORT_LLAMA_FACTORY = """\
model_name_or_path: org/base
stage: sft
finetuning_type: lora
dataset: chats
template: qwen
learning_rate: 1e-4
"""
SHORT_TRL = "model_name_or_path: org/base\ndataset_name: data/pairs.jsonl\nuse_peft: true\n"
RANKED = SHORT_LLAMA_FACTORY.replace("sft", "dpo").replace("chats", "ranked")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (SHORT_AXOLOTL + "model_type: LlamaForCausalLM\noptimizer: adamw_torch_fused\n", {"optimizer": "adamw"}),
        (SHORT_AXOLOTL + "liger_rope: true\nliger_rms_norm: true\nliger_fused_linear_cross_entropy: true\n", {"use_liger_kernel": True}),
        (SHORT_AXOLOTL + "liger_rope: true\nsample_packing: true\n", {"use_liger_kernel": False, "packing": "bfd"}),
        (SHORT_AXOLOTL.replace("adapter: lora\n", "") + "sample_packing: true\nliger_rope: true\nfp16: true\n",
         {"adapter": "full", "packing": "none", "use_liger_kernel": True, "fp16": False}),
        (RANKED + "packing: true\n", {"method": "dpo", "packing": "none"}),
        (SHORT_TRL + "packing: true\ntrain_sampling_strategy: random\n", {"packing": "bfd"}),
        (SHORT_TRL + "train_sampling_strategy: group_by_length\nenv: {A: 1}\n", {"group_by_length": True}),
        (SHORT_TRL + "beta: 0.1\nf_divergence_type: reverse_kl\nlabel_smoothing: 0.0\n", {"method": "dpo"}),
        (SHORT_AXOLOTL + "use_kernels: true\n", {"use_kernels": True}),
        (SHORT_LLAMA_FACTORY + "enable_liger_kernel: true\nuse_unsloth: true\n", {"use_liger_kernel": True}),
        (SHORT_TRL + "use_liger_kernel: true\n", {"use_liger_kernel": True}),
        (SHORT_AXOLOTL + "evals_per_epoch: 4\nnum_epochs: 3\nearly_stopping_patience: 2\n", {"evals_per_run": 13, "early_stopping_patience": 2}),
        (SHORT_AXOLOTL + "eval_steps: 0.25\nlr_scheduler: constant\nwarmup_ratio: 0.1\n", {"evals_per_run": 5, "eval_steps": None}),
        (SHORT_AXOLOTL.replace("{field_instruction: question, field_output: answer}", "chatml.intel") + "rl: ipo\nrl_beta: 0.2\n",
         {"method": "dpo", "dpo_loss": "ipo", "dpo_beta": 0.2}),
        (SHORT_LLAMA_FACTORY + "pissa_init: true\noptim: adamw_torch_fused\n", {"init_lora_weights": "pissa", "optimizer": "adamw"}),
        (SHORT_LLAMA_FACTORY + "quantization_bit: 4\ndouble_quantization: false\nquantization_type: fp4\nquantization_method: bnb\n",
         {"adapter": "qlora", "bnb_4bit_use_double_quant": False, "bnb_4bit_quant_type": "fp4"}),
        (RANKED + "pref_beta: 0.3\npref_loss: hinge\n", {"method": "dpo", "dpo_beta": 0.3, "dpo_loss": "hinge"}),
        (RANKED + "pref_beta: 0.3\npref_loss: orpo\n", {"method": "orpo", "orpo_alpha": 0.3}),
        (SHORT_TRL + "beta: 0.05\nloss_type: hinge\nmax_steps: 3\n", {"method": "dpo", "dpo_beta": 0.05, "dpo_loss": "hinge", "logging_steps": 1}),
        (SHORT_TRL + "beta: 0.05\ndesirable_weight: 2.0\n", {"method": "kto", "kto_beta": 0.05, "desirable_weight": 2.0}),
        (SHORT_TRL + "load_in_4bit: true\n", {"adapter": "qlora", "bnb_4bit_use_double_quant": False}),
        (SHORT_TRL + "eval_strategy: steps\neval_steps: 0.1\n", {"evals_per_run": 11}),
        (AIROAD_FILE.replace("log_wandb: false", "log_wandb: true").replace("ablate_examples: 0", "ablate_examples: 96"),
         {"report_to": ["wandb"], "ablate_examples": 96, "warmup_ratio": 0, "seed": 42, "early_stopping_patience": None}),
        (AIROAD_FILE + "eval_limit: 9\nmax_new_tokens: 77\nlora_target_mode: attn+mlp\nearly_stop_min_delta: 0.003\nearly_stop_min_steps: 30\n",
         {"eval_rows": 9, "eval_max_new_tokens": 77, "lora_target_mode": "attn_mlp", "plateau_min_delta": 0.003, "plateau_min_steps": 30}),
        (AIROAD_FILE + "eval_early_stop: true\neval_steps: 5\neval_patience: 4\n", {"eval_steps": 5, "early_stopping_patience": 4}),
        (AIROAD_PAIRS, {"method": "dpo"}),
        (AIROAD_PAIRS + "dpo_beta: 0.3\n", {"method": "dpo", "dpo_beta": 0.3}),
        (AIROAD_PAIRS + "orpo_alpha: 0.3\n", {"method": "orpo", "orpo_alpha": 0.3}),
        (AIROAD_PAIRS.replace("batch_size: 1", "batch_size: 2") + "kto_beta: 0.3\nundesirable_weight: 2.0\n", {"method": "kto", "kto_beta": 0.3, "undesirable_weight": 2.0}),
    ],
)  # fmt: skip
def test_rarer_keys_train_the_same_here_too(folder: Path, text: str, expected: dict[str, object]) -> None:
    found = stream(folder, text).model_dump()
    assert {key: found[key] for key in expected} == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (RANKED, {"type": "prompt_completion", "prompt": "instruction", "completion": "good", "rejected": "bad",
                  "prompt_template": "{instruction}\n{input}", "no_input_template": "{instruction}"}),
        (RANKED.replace("ranked", "judged"), {"type": "prompt_completion", "prompt": "conversations", "completion": "good", "rejected": "bad"}),
        (SHORT_LLAMA_FACTORY.replace("sft", "pt").replace("chats", "texts"), {"type": "text", "text": "body"}),
        (SHORT_LLAMA_FACTORY.replace("chats", "led"), {"type": "prompt_completion", "prompt": "q", "completion": "a", "system": "lead"}),
        (SHORT_LLAMA_FACTORY, {"type": "chatml", "system": None}),
        (SHORT_LLAMA_FACTORY.replace("chats", "tools"), {"type": "chatml", "messages": "turns", "tools": "functions", "split": "dev"}),
        (SHORT_LLAMA_FACTORY.replace("chats", "chats, tools") + "mix_strategy: interleave_under\ninterleave_probs: 0.7,0.3\n", {"weight": 0.7}),
        (SHORT_AXOLOTL.replace("{field_instruction: question, field_output: answer}", "llama3.argilla") + "rl: dpo\n",
         {"prompt": "instruction", "completion": "chosen_response", "rejected": "rejected_response"}),
        (SHORT_AXOLOTL.replace("field_instruction: question, field_output: answer", "field_prompt: q, field_chosen: a, field_rejected: b") + "rl: dpo\n",
         {"type": "prompt_completion", "prompt": "q", "completion": "a", "rejected": "b"}),
        (SHORT_AXOLOTL.replace("{field_instruction: question, field_output: answer}", "chat_template.default, field_messages: talk, field_chosen: a, field_rejected: b") + "rl: dpo\n",
         {"type": "prompt_completion", "prompt": "talk", "completion": "a", "rejected": "b"}),
        (SHORT_AXOLOTL.replace("{field_instruction: question, field_output: answer}", "chat_template.argilla") + "rl: orpo\n",
         {"type": "chatml", "messages": "chosen", "rejected": "rejected"}),
        (SHORT_TRL + "beta: 0.1\n", {"type": "auto", "rejected": "rejected"}),
    ],
)  # fmt: skip
def test_rows_of_other_tools_are_the_same_rows_here(folder: Path, text: str, expected: dict[str, object]) -> None:
    found = stream(folder, text).datasets[0].model_dump()
    assert {key: found[key] for key in expected} == expected


@pytest.mark.parametrize(
    ("about", "problem"),
    [
        ({"formatting": "sharegpt", "columns": {"messages": "m", "images": "i"}}, "images are not read"),
        ({"formatting": "sharegpt", "tags": {"role_tag": "speaker"}}, "messages whose role_tag is 'speaker' are not read; write from or role"),
        ({"file_name": None, "hf_hub_url": "org/rows", "subset": "zh"}, "a part of a hub dataset (zh) cannot be named"),
    ],
)  # fmt: skip
def test_what_a_dataset_of_llama_factory_has_and_ours_has_not_is_refused(
    folder: Path, about: dict[str, object], problem: str
) -> None:
    (folder / "data/dataset_info.json").write_text(json.dumps({"chats": {"file_name": "a.jsonl", **about}}))
    with pytest.raises(UserErrors) as caught:
        taken(folder, SHORT_LLAMA_FACTORY)
    assert f":4: dataset: {problem}" in str(caught.value)


def test_a_default_of_the_other_tool_that_is_refused_here_is_called_one_at_the_file(folder: Path) -> None:
    with pytest.raises(UserErrors) as caught:
        taken(folder, SHORT_TRL.replace("use_peft: true", "beta: 0.1"))
    assert re.match(r"other\.yaml:1: by a default of TRL, here defaults\.adapter: TRL copies", str(caught.value))


@pytest.mark.parametrize(
    ("tool", "keys"), [(TOOLS[0], AXOLOTL), (TOOLS[1], LLAMA_FACTORY)], ids=["axolotl", "LLaMA-Factory"]
)
def test_every_key_that_the_tool_has_is_known(folder: Path, tool: object, keys: str) -> None:
    unknown = []
    text = AXOLOTL_FILE if tool is TOOLS[0] else LLAMA_FACTORY_FILE
    for key in keys.split():
        if re.search(rf"^{key}:", text, re.MULTILINE):
            continue
        try:
            taken(folder, f"{text}{key}: null\n")
        except UserErrors as errors:
            unknown += [key] if "is known by this name" in str(errors) else []
    assert not unknown


ODD = ("[1, {a: b}]", "{a: {b: 1}}", "word", "-3", "[]", "true")


@pytest.mark.parametrize("name", FILES)
def test_a_value_of_another_form_is_a_problem_and_never_a_crash(folder: Path, name: str) -> None:
    whole, (tool,) = (
        FILES[name][0],
        [one for one in TOOLS if one.name.lower().replace("-", "").startswith(name.partition(".")[0])] or [TOOLS[-1]],
    )
    values = (
        yamlfile.read(whole, name, folder, Problems()) if name != "pipe.toml" else tomlfile.read(whole, name, folder)
    )
    plain = values.plain()
    assert isinstance(plain, dict)
    for key in {*tool.rules, *plain}:
        kept = "".join(f"{one}: {json.dumps(value)}\n" for one, value in plain.items() if one != key)
        for odd in ODD:
            with contextlib.suppress(UserErrors):
                taken(folder, f"{kept}{key}: {odd}\n")


def test_the_defaults_of_trl_are_those_of_the_installed_trl(folder: Path) -> None:
    from trl import ModelConfig, SFTConfig

    theirs = {field.name: field.default for one in (SFTConfig, ModelConfig) for field in dataclasses.fields(one)}
    ours = TRL.defaults(Foreign(TRL, {"use_peft": True}, folder, folder))
    names = {
        "micro_batch_size": "per_device_train_batch_size", "num_epochs": "num_train_epochs", "sequence_len": "max_length", "warmup_ratio": "warmup_steps",
    }  # fmt: skip
    assert {name: theirs[names.get(name, name)] for name in ours} == ours
    in_4_bits = TRL.defaults(Foreign(TRL, {"use_peft": True, "load_in_4bit": True}, folder, folder))
    assert in_4_bits["bnb_4bit_use_double_quant"] == theirs["use_bnb_nested_quant"]
    assert theirs["lr_scheduler_type"] == StreamSettings.model_fields["lr_scheduler"].default


def test_init_from_a_file_writes_ours_and_never_over_an_existing_one(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    text = TRL_FILE.replace("org/base", "tiny-toon")
    (folder / "trl.yaml").write_text(text)
    done = CliRunner().invoke(app, ["init", "my.yaml", "--from", "trl.yaml"])
    assert done.exit_code == 0, done.output
    assert load(folder / "my.yaml", cwd=folder).run.streams["lora"].base_model == "tiny-toon"
    assert "swarm check my.yaml" in done.stderr
    assert CliRunner().invoke(app, ["init", "my.yaml", "--from", "trl.yaml"]).exit_code != 0
    assert sorted(path.name for path in folder.iterdir()) == ["data", "my.yaml", "trl.yaml"]
