"""Issue 13: whoever brings a config of another tool is told for each of its keys what it is here, or what is done instead."""

from __future__ import annotations

import dataclasses
import re
from typing import get_args

import pytest

from swarm import kinds
from swarm.config.foreign import DATASET, PATTERNS, PLACEMENT, PROMOTION, RUN, STREAM
from swarm.config.names import GROUPS, fix_of_key, fix_of_value
from swarm.settings import Dataset, StreamSettings

AXOLOTL = """
strict resume_from_checkpoint auto_resume_from_checkpoints resize_token_embeddings_to_32x mean_resizing_embeddings
shrink_embeddings embeddings_skip_upcast rl trl vllm qat quantization reward_model process_reward_model num_labels
dpo_use_weighting dpo_use_logits_to_keep datasets test_datasets shuffle_merged_datasets dataset_prepared_path
dataset_shard_num dataset_shard_idx skip_prepare_dataset pretraining_dataset dataset_processes dataset_exact_deduplication
dataset_keep_in_memory dataloader_pin_memory dataloader_num_workers dataloader_prefetch_factor dataloader_drop_last
accelerator_config remove_unused_columns push_dataset_to_hub hf_use_auth_token device device_map world_size local_rank ddp
seed ddp_timeout ddp_bucket_cap_mb ddp_broadcast_buffers ddp_find_unused_parameters eval_table_size eval_max_new_tokens
do_causal_lm_eval eval_causal_lm_metrics do_bench_eval bench_dataset bench_split metric_for_best_model greater_is_better
loss_watchdog_threshold loss_watchdog_patience gc_steps bf16 fp16 fp8 bfloat16 float16 tf32 float32 gradient_checkpointing
gradient_checkpointing_kwargs unfrozen_parameters sequence_len min_sample_len max_prompt_len sample_packing
sample_packing_group_size sample_packing_bin_size sample_packing_sequentially eval_sample_packing pad_to_sequence_len
curriculum_sampling multipack_real_batches pretraining_sample_concatenation batch_flattening use_pose pose_split_on_token_ids
pose_max_context_len pose_num_chunks pretrain_multipack_buffer_size pretrain_multipack_attn xformers_attention sdp_attention
s2_attention flex_attention flex_attn_compile_kwargs flash_attention flash_attn_cross_entropy flash_attn_rms_norm
flash_attn_fuse_qkv flash_attn_fuse_mlp flash_optimum eager_attention unsloth_cross_entropy_loss unsloth_lora_mlp
unsloth_lora_qkv unsloth_lora_o unsloth_rms_norm unsloth_rope lora_mlp_kernel lora_qkv_kernel lora_o_kernel
llama4_linearized_experts deepspeed fsdp fsdp_config fsdp_final_state_dict_type val_set_size sequence_parallel_degree
heads_k_stride ring_attn_func special_tokens tokens added_tokens_overrides torch_compile torch_compile_backend
torch_compile_mode max_steps warmup_steps warmup_ratio eval_steps evals_per_epoch eval_strategy save_steps saves_per_epoch
save_strategy save_total_limit logging_steps early_stopping_patience load_best_model_at_end save_only_model use_tensorboard
profiler_steps include_tokens_per_second neftune_noise_alpha orpo_alpha rpo_alpha simpo_gamma cpo_alpha kto_desirable_weight
kto_undesirable_weight rl_beta max_memory gpu_memory_limit low_cpu_mem_usage chat_template chat_template_jinja eot_tokens
default_system_message fix_untrained_tokens is_preprocess preprocess_iterable total_num_tokens total_supervised_tokens
sample_packing_eff_est axolotl_config_path is_falcon_derived_model is_llama_derived_model is_mistral_derived_model
is_qwen_derived_model plugins gradient_accumulation_steps micro_batch_size batch_size eval_batch_size auto_find_batch_size
train_on_inputs group_by_length learning_rate embedding_lr embedding_lr_scale weight_decay optimizer optim_args
optim_target_modules torchdistx_path lr_scheduler lr_scheduler_kwargs lr_quadratic_warmup cosine_min_lr_ratio
cosine_constant_lr_ratio lr_div_factor lr_groups adam_epsilon adam_epsilon2 adam_beta1 adam_beta2 adam_beta3 max_grad_norm
num_epochs load_in_8bit load_in_4bit adapter lora_model_dir lora_r lora_alpha lora_fan_in_fan_out lora_target_modules
lora_target_parameters lora_target_linear lora_modules_to_save lora_dropout peft_layers_to_transform peft_layers_pattern peft
peft_use_dora peft_use_rslora peft_layer_replication peft_init_lora_weights peft_trainable_token_indices
peft_ensure_weight_tying peft_autocast_adapter_dtype qlora_sharded_model_loading lora_on_cpu gptq bnb_config_kwargs
loraplus_lr_ratio loraplus_lr_embedding merge_lora merge_method relora relora_prune_ratio relora_prune_method
relora_cpu_offload base_model base_model_config cls_model_config tokenizer_config tokenizer_use_fast tokenizer_legacy
tokenizer_use_mistral_common tokenizer_type processor_type tokenizer_save_jinja_files trust_remote_code
experimental_skip_move_to_device use_kernels model_quantization_config model_quantization_config_kwargs output_dir
hub_model_id hub_strategy hub_revision save_safetensors wandb_project wandb_entity wandb_name wandb_run_id wandb_log_model
use_wandb mlflow_tracking_uri mlflow_experiment_name use_mlflow use_comet comet_project_name lisa_n_layers lisa_step_interval
gradio_title ray_num_workers
"""
LLAMA_FACTORY = """
template dataset eval_dataset dataset_dir media_dir cutoff_len train_on_prompt mask_history streaming buffer_size mix_strategy
interleave_probs overwrite_cache preprocessing_batch_size preprocessing_num_workers max_samples eval_num_beams
ignore_pad_token_for_loss val_size eval_on_each_dataset packing neat_packing tool_format tokenized_path
freeze_trainable_layers freeze_trainable_modules freeze_extra_modules additional_target lora_alpha lora_dropout lora_rank
lora_target loraplus_lr_ratio loraplus_lr_embedding use_rslora use_dora pissa_init pissa_iter pissa_convert
create_new_adapter module_dropout oft_rank oft_block_size oft_target pref_beta pref_ftx pref_bco_weight pref_loss
dpo_label_smoothing kto_chosen_weight kto_rejected_weight simpo_gamma ppo_buffer_size ppo_epochs ppo_score_norm ppo_target
ppo_whiten_rewards ref_model ref_model_adapters ref_model_quantization_bit reward_model reward_model_adapters
reward_model_quantization_bit reward_model_type ld_alpha use_galore galore_target galore_rank galore_update_interval
galore_scale galore_proj_type galore_layerwise use_apollo apollo_target apollo_rank apollo_update_interval apollo_scale
apollo_proj apollo_proj_type apollo_scale_type apollo_layerwise apollo_scale_front use_badam badam_mode badam_start_block
badam_switch_mode badam_switch_interval badam_update_ratio badam_mask_mode badam_verbose use_swanlab swanlab_project
swanlab_workspace swanlab_run_name swanlab_mode swanlab_api_key swanlab_logdir swanlab_lark_webhook_url swanlab_lark_secret
pure_bf16 stage finetuning_type use_llama_pro use_adam_mini use_mca use_muon use_dft_loss freeze_vision_tower
freeze_multi_modal_projector freeze_language_model compute_accuracy disable_shuffling early_stopping_steps plot_loss
include_effective_tokens_per_second model_name_or_path adapter_name_or_path adapter_folder cache_dir use_fast_tokenizer
resize_vocab split_special_tokens add_tokens add_special_tokens new_special_tokens_config init_special_tokens model_revision
low_cpu_mem_usage rope_scaling flash_attn shift_attn mixture_of_depths use_unsloth use_unsloth_gc enable_liger_kernel
moe_aux_loss_coef disable_gradient_checkpointing use_reentrant_gc upcast_layernorm upcast_lmhead_output train_from_scratch
infer_backend offload_folder use_kv_cache use_v1_kernels infer_dtype hf_hub_token ms_hub_token om_hub_token
print_param_status trust_remote_code quantization_method quantization_bit quantization_type double_quantization
quantization_device_map fp8 fp8_backend fp8_enable_fsdp_float8_all_gather image_max_pixels image_min_pixels
image_do_pan_and_scan crop_to_patches video_max_pixels video_min_pixels video_fps video_maxlen use_audio_in_video
audio_sampling_rate export_dir export_size export_device export_quantization_bit export_quantization_dataset
export_quantization_nsamples export_quantization_maxlen export_legacy_format
"""
DATASETS = """
path split type input_transform shards shards_idx preprocess_shards conversation chat_template chat_template_jinja data_files
input_format name ds_type field field_human field_model field_messages field_tools field_thinking template_thinking_key
message_field_role message_field_content message_property_mappings message_field_training message_field_training_detail
split_thinking logprobs_field temperature roles_to_train train_on_eos roles drop_system_message trust_remote_code revision
system_prompt system_format field_system field_instruction field_input field_output format no_input_format text_column skip
field_prompt field_chosen field_rejected prompt_format chosen_format rejected_format step_separator max_completion_length
train_on_last_step_only field_completion field_label completion_format train_on_split file_name formatting ranking subset
folder num_samples columns tags role_tag content_tag user_tag assistant_tag observation_tag function_tag system_tag
hf_hub_url ms_hub_url script_url query response system tools images videos audios chosen rejected kto_tag
"""


QLORA_PIPE = (
    "scale_weight_norms save_dtype hqq offload_mlp_to_cpu mlp_offload test_sampling batch_size_tokens group_by_length"
)
"""Row X11: what qlora-pipe has beside the keys of the others."""


def libraries() -> list[str]:
    """All that TRL's configs (SFTConfig with transformers' TrainingArguments), ModelConfig, ScriptArguments and PEFT's LoraConfig take."""
    from peft import LoraConfig
    from trl import DPOConfig, KTOConfig, ModelConfig, ScriptArguments, SFTConfig
    from trl.experimental.orpo import ORPOConfig

    return [
        field.name
        for made in (SFTConfig, DPOConfig, KTOConfig, ORPOConfig, ModelConfig, ScriptArguments, LoraConfig)
        for field in dataclasses.fields(made)
    ]


def pointless(keys: list[str], group: type) -> list[str]:
    own = (
        {*group.model_fields, *StreamSettings.chosen_by({}).model_fields}
        if group is StreamSettings
        else set(group.model_fields)
    )
    return [key for key in keys if key not in own and "remove it" in fix_of_key(key, group)]


@pytest.mark.parametrize("keys", [AXOLOTL, LLAMA_FACTORY, QLORA_PIPE], ids=["axolotl", "LLaMA-Factory", "qlora-pipe"])
def test_every_key_of_another_tool_has_its_meaning(keys: str) -> None:
    assert pointless(keys.split(), StreamSettings) == []


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")
def test_every_key_of_the_installed_libraries_has_its_meaning() -> None:
    ignored = {"ignore_bias_buffers"}  # a workaround of TRL's scripts for one model
    assert pointless([key for key in libraries() if key not in ignored], StreamSettings) == []


def test_every_key_of_their_datasets_has_its_meaning() -> None:
    assert pointless(DATASETS.split(), Dataset) == []


def test_every_setting_that_a_meaning_names_is_one() -> None:
    known = {name for group in GROUPS for name in group.model_fields} | {"defaults"}
    known |= {
        name
        for setting in kinds.ALL
        for kind in kinds.installed(setting).values()
        for name in kind.settings.model_fields
    }
    words = [words for table in (STREAM, DATASET, PLACEMENT, PROMOTION, RUN) for words in table]
    named = [name for text in [*words, *(text for _, text in PATTERNS)] for name in re.findall(r"`(\w+)", text)]
    assert set(named) - known == {"swarm", "hf", "train"}, "commands, and keys of a message"


@pytest.mark.parametrize(
    ("key", "group", "told"),
    [
        ("max_samples", StreamSettings, "here it is `limit`, in an entry of `datasets:`"),
        ("roles", Dataset, "roles are read as they are: user, assistant, system, tool, and human and gpt of ShareGPT"),
        ("pad_to_sequence_len", StreamSettings, "rows of like length go through the base together, and their pads are never seen; what packs is packing: bfd"),
        ("sample_packing", StreamSettings, "here it is `packing: bfd`"),
        ("quantization_bit", StreamSettings, "here it is `adapter: qlora`"),
        ("flash_attention", StreamSettings, "here it is `attn_implementation`"),
        ("device_map", StreamSettings, (
            "a base lies whole on its stream's device, since weights that are moved there for every step make each many times slower; "
            "one that does not fit is refused beforehand: `adapter: qlora` needs about a quarter"
        )),
        ("finetuning_type", StreamSettings, "here it is `adapter: lora`"),
        ("train_on_split", Dataset, "here it is `train_on`, in the stream; a message's own `train` or `weight` is honoured"),
        ("load_best_model_at_end", StreamSettings, "with `eval_steps` the checkpoint with the best held-out figure is kept, judged and published"),
        ("wandb_project", StreamSettings, "the log, metrics.db and the dashboard hold what is measured; `swarm export` writes it"),
        ("chat_template", StreamSettings, "the chat template is the base's own: save another with its tokenizer"),
    ],
)  # fmt: skip
def test_some_of_them_in_words(key: str, group: type, told: str) -> None:
    assert fix_of_key(key, group) == told


@pytest.mark.parametrize("value", ["flash_attention_2", "flash-attn", "flash_attention_3"])
def test_the_package_of_flash_attention_is_not_used_and_what_is_instead_is_named(value: str) -> None:
    """C25."""
    choices = get_args(StreamSettings.model_fields["attn_implementation"].annotation)
    fix = "write `attn_implementation: auto`: sdpa has flash kernels of torch's own, and the package flash-attn is not used"
    assert fix_of_value("attn_implementation", value, choices) == fix
