"""Keys of axolotl, of TRL with transformers' Trainer and PEFT, of LLaMA-Factory, torchtune and qlora-pipe, for error messages; none is a setting.

Each key is listed under the setting that does the same, or under a sentence that explains what is done instead.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from swarm.keys import Settings
from swarm.settings import Dataset, Placement, Promotion, RunSettings, StreamSettings

STREAM = {
    # what is tuned
    "`base_model`": "model_name_or_path model model_name model_id pretrained_model_name_or_path base_model_config",
    "`adapter: lora`": "use_peft peft_type finetuning_type peft task_type lora_task_type",
    "`adapter: qlora`": "load_in_4bit quantize_base quantization quantization_bit quantization_method quantization_config",
    "`bnb_4bit_quant_type`, with `adapter: qlora`": "quantization_type bnb_config_kwargs",
    "`bnb_4bit_use_double_quant`, with `adapter: qlora`": "use_bnb_nested_quant double_quantization",
    "`adapter: qlora`, whose 4-bit values are stored as bytes": "bnb_4bit_quant_storage",
    "`adapter: qlora`, which is 4-bit": "load_in_8bit",
    "`method`": "rl trainer stage training_type",
    "name a folder of that revision as `base_model`": "revision model_revision revision_of_model",
    "the tokenizer is that of `base_model`": "tokenizer_config tokenizer_type tokenizer_use_fast use_fast_tokenizer "
    "tokenizer_legacy tokenizer_use_mistral_common tokenizer_save_jinja_files processor_type tokenizer split_special_tokens",
    "the tokenizer is used as it is: add tokens and resize the embeddings before, and name that folder as `base_model`": "tokens "
    "special_tokens added_tokens_overrides add_tokens add_special_tokens new_special_tokens_config init_special_tokens eos_token "
    "pad_token eot_tokens resize_vocab resize_token_embeddings_to_32x mean_resizing_embeddings shrink_embeddings "
    "fix_untrained_tokens embeddings_skip_upcast padding_value",
    "the model is loaded as its config.json says": "cls_model_config model_type type_of_model model_quantization_config "
    "model_quantization_config_kwargs model_init_kwargs rope_scaling is_falcon_derived_model is_llama_derived_model "
    "is_mistral_derived_model is_qwen_derived_model mixture_of_depths train_from_scratch llama4_linearized_experts gptq "
    "experimental_skip_move_to_device is_encoder_decoder",
    "HF_HOME says where downloads are kept, `hf auth login` who asks for them": "cache_dir hub_token hf_hub_token ms_hub_token "
    "om_hub_token hf_use_auth_token token use_auth_token",
    # data
    "`datasets: [{path: ..., type: ...}]`": "dataset dataset_name dataset_path data_path data_files train_file train_data "
    "dataset_dir pretraining_dataset",
    "`datasets: [{path: ..., type: text, text: COLUMN}]`": "dataset_text_field text_column",
    "`split`, in an entry of `datasets:`": "dataset_train_split train_on_split dataset_config",
    "`limit`, in an entry of `datasets:`": "max_samples max_train_samples",
    "`weight`, in each entry of `datasets:`": "interleave_probs",
    "`test_datasets`": "dataset_val eval_dataset eval_datasets validation_file dataset_test_split",
    "`val_set_size`": "eval_split val_split val_size test_size",
    "`sequence_len`": "max_length max_seq_length max_seq_len sequence_length seq_len cutoff_len model_max_length max_prompt_len "
    "max_prompt_length max_completion_length",
    "`train_on_inputs: false`": "completion_only_loss assistant_only_loss",
    "`train_on_inputs`": "train_on_input train_on_prompt",
    "`train_on`": "train_on_eos roles_to_train mask_history",
    "`on_bad_row`": "skip_bad_rows",
    "the chat template is the base's own: save another with its tokenizer": "chat_template chat_template_jinja template "
    "chat_template_path tool_format",
    "`system_prompt`": "default_system_message default_system",
    "rows are prepared once and shared by streams that ask for the same": "dataset_prepared_path tokenized_path overwrite_cache "
    "skip_prepare_dataset dataset_processes dataset_num_proc preprocessing_num_workers preprocessing_batch_size dataset_kwargs "
    "dataset_keep_in_memory preprocess_iterable is_preprocess dataset_shard_num dataset_shard_idx num_proc",
    "rows are read whole and shuffled by `seed`": "streaming dataset_streaming buffer_size shuffle shuffle_dataset "
    "shuffle_merged_datasets disable_shuffling curriculum_sampling data_seed train_sampling_strategy dataloader_shuffle",
    "all held-out rows are judged together": "eval_on_each_dataset accelerate_dataset",
    "`packing: bfd`": "sample_packing neat_packing packed packing_strategy multipack_real_batches",
    "rows of like length go through the base together, and their pads are never seen; what packs is packing: bfd": "eval_packing eval_sample_packing "
    "pad_to_sequence_len pad_to_multiple_of padding_free batch_flattening length_column_name pretraining_sample_concatenation "
    "wrapped_packing efficient_eos",
    "`dedupe`": "dataset_exact_deduplication",
    "rows longer than `sequence_len` are cut; `max_cut_rows` says how many may be": "min_sample_len excess_length_strategy",
    "rows longer than `sequence_len` are cut at the end": "truncation_mode truncation overlong_prompt",
    "text alone is trained on: rows with images or sound are refused": "media_dir freeze_vision_tower "
    "freeze_multi_modal_projector freeze_language_model crop_to_patches use_audio_in_video vision_tower",
    "padding never counts in the loss": "ignore_pad_token_for_loss",
    "columns are named in an entry of `datasets:`": "remove_unused_columns label_names",
    # adapter
    "`lora_r`": "r rank lora_rank",
    "`lora_alpha`": "alpha",
    "`lora_target_modules`": "target_modules lora_target lora_attn_modules apply_lora_to_mlp apply_lora_to_output",
    "`lora_target_modules: all-linear`": "lora_target_linear",
    "`use_dora`": "peft_use_dora dora",
    "`use_rslora`": "peft_use_rslora rslora",
    "adapters alone are trained: no other weight is saved": "modules_to_save lora_modules_to_save additional_target "
    "trainable_token_indices peft_trainable_token_indices unfrozen_parameters ensure_weight_tying peft_ensure_weight_tying",
    "`init_lora_weights`": "peft_init_lora_weights pissa_init init_method",
    "A begins at random and B at zero, or with `init_lora_weights`": "pissa_iter pissa_convert loftq_config "
    "eva_config corda_config lora_ga_config",
    "`layers_to_transform`": "peft_layers_to_transform lora_layers_to_transform",
    "`lora_target_mode`": "target_mode",
    "`lora_weight_dtype`": "lora_dtype adapter_dtype",
    "write names or a pattern into `lora_target_modules`": "exclude_modules layers_pattern peft_layers_pattern",
    "experts of a mixture get no adapter": "target_parameters lora_target_parameters moe_aux_loss_coef router_aux_loss_coef "
    "aux_loss_coef",
    "set by the program as the layers need it": "fan_in_fan_out lora_fan_in_fan_out inference_mode auto_mapping peft_version "
    "runtime_config peft_autocast_adapter_dtype autocast_adapter_dtype lora_on_cpu upcast_layernorm upcast_lmhead_output "
    "megatron_config megatron_core base_model_name_or_path",
    "an adapter has no bias and no layers of its own": "bias lora_bias layer_replication peft_layer_replication use_llama_pro "
    "velora_config alora_invocation_tokens use_qalora qalora_group_size monteclora_config use_bdlora arrow_config kasa_config",
    "a stream begins with a new adapter, on top of another with `start_adapter`; `swarm resume` goes on with one": "lora_model_dir adapter_name_or_path adapter_folder "
    "create_new_adapter resume_from_checkpoint auto_resume_from_checkpoints resume restore_callback_states_from_checkpoint "
    "ignore_data_skip",
    "merge a finished adapter with `swarm merge`": "merge_lora merge_method",
    "`lora_max_norm`": "scale_weight_norms",
    "checkpoints stay as exact as they are trained: `swarm export-adapter` writes f32, f16 or bf16": "save_dtype",
    "`adapter: qlora`: NF4 and FP4 are the 4-bit forms": "hqq hqq_config",
    "each step would wait for the weights: `adapter: qlora` makes the base smaller": "offload_mlp_to_cpu mlp_offload",
    "`swarm show` shows rows, `swarm chat` answers": "test_sampling",
    # optimisation
    "`micro_batch_size`": "per_device_train_batch_size per_device_batch_size batch_size train_batch_size auto_find_batch_size",
    "`gradient_accumulation_steps`": "grad_accum_steps accumulation_steps",
    "`num_epochs`": "num_train_epochs epochs",
    "`max_steps`": "max_steps_per_epoch max_train_steps",
    "`max_minutes`": "max_time max_train_minutes",
    "`learning_rate`": "lr embedding_lr embedding_lr_scale lr_groups loraplus_lr_ratio loraplus_lr_embedding",
    "`lr_scheduler`": "lr_scheduler_type scheduler lr_scheduler_kwargs lr_quadratic_warmup cosine_min_lr_ratio "
    "cosine_constant_lr_ratio lr_div_factor",
    "`warmup_steps`": "num_warmup_steps",
    "`optimizer`": "optim use_adam_mini use_muon torchdistx_path optim_target_modules lisa_n_layers",
    "`beta1`": "adam_beta1",
    "`beta2`": "adam_beta2",
    "`eps`": "adam_epsilon",
    "the optimizer's other numbers are those of its paper": "optim_args adam_beta3 adam_epsilon2",
    "`max_grad_norm`": "clip_grad_norm gradient_clipping",
    "`bf16`": "dtype torch_dtype pure_bf16 bfloat16 float16 float32 infer_dtype bf16_full_eval fp16_full_eval tf32",
    "`bf16`; 8-bit arithmetic is not used": "fp8 fp8_backend fp8_enable_fsdp_float8_all_gather",
    "`gradient_checkpointing`": "enable_activation_checkpointing activation_checkpointing disable_gradient_checkpointing",
    "recomputing does without reentrant autograd: set `gradient_checkpointing` alone": "gradient_checkpointing_kwargs use_reentrant_gc "
    "activation_checkpointing_kwargs activation_offloading use_unsloth_gc",
    "`loss`": "loss_type use_dft_loss dft use_asft_loss",
    "`kl_lambda`": "asft_alpha kl_weight",
    "the loss is cross-entropy on supervised tokens": "label_smoothing_factor neftune_noise_alpha "
    "average_tokens_across_devices reward_model process_reward_model num_labels dpo_use_weighting dpo_use_logits_to_keep "
    "rpo_alpha simpo_gamma cpo_alpha rl_beta ref_model ref_model_adapters ref_model_quantization_bit ld_alpha "
    "dpo_label_smoothing compute_accuracy beta label_smoothing loss_weights use_weighting f_divergence_type f_alpha_divergence_coef "
    "discopop_tau",
    "the reference is the base with its adapter off": "precompute_ref_log_probs precompute_ref_batch_size sync_ref_model ref_model_sync_steps "
    "ref_model_mixup_alpha reference_free",
    "`lora_dropout`, whatever the method": "disable_dropout",
    "set environment variables where the run is started": "env",
    "the seed alone makes a training repeatable on one device": "full_determinism deterministic strict",
    "`attn_implementation`": "flash_attention flash_attn sdp_attention xformers_attention eager_attention flex_attention "
    "flex_attn_compile_kwargs s2_attention shift_attn flash_optimum sage_attention",
    "a sequence is read whole on one device": "ring_attn_func heads_k_stride sequence_parallel_degree context_parallel_size",
    "keys and values are kept while an answer is generated, and not in training": "use_cache use_kv_cache",
    "`use_liger_kernel`": "enable_liger_kernel",
    "`use_liger_kernel`, with the layers that Liger takes by itself": "liger_kernel_config",
    "Unsloth is made for older versions of TRL, transformers and datasets than this program: `use_liger_kernel`, or leave it out": "use_unsloth",
    "the libraries' own kernels are used": "use_v1_kernels lora_mlp_kernel lora_qkv_kernel lora_o_kernel torch_compile torch_compile_backend torch_compile_mode compile "
    "plugins torch_empty_cache_steps gc_steps",
    # cadence and judging
    "`eval_steps`": "eval_strategy evaluation_strategy evals_per_epoch run_val_every_n_steps eval_delay eval_on_start do_eval",
    "`save_steps`": "save_strategy saves_per_epoch save_every_n_steps enable_jit_checkpoint",
    "`logging_steps`": "log_every_n_steps logging_strategy logging_first_step",
    "`eval_max_new_tokens`": "max_new_tokens",
    "`eval_rows`": "max_eval_samples eval_table_size",
    "held-out rows are judged in batches that fit": "eval_batch_size per_device_eval_batch_size eval_accumulation_steps "
    "eval_do_concat_batches eval_use_gather_object batch_eval_metrics include_for_metrics prediction_loss_only eval_num_beams "
    "predict_with_generate generate_during_eval do_predict do_causal_lm_eval eval_causal_lm_metrics do_bench_eval include_tokens_per_second "
    "include_effective_tokens_per_second include_num_input_tokens_seen",
    "with `eval_steps` the checkpoint with the best held-out figure is kept, judged and published": "load_best_model_at_end",
    "`early_stopping_patience`": "early_stopping_steps eval_patience",
    "`early_stopping_min_delta`": "early_stopping_threshold",
    "`plateau_patience`": "early_stop_patience",
    "`plateau_min_delta`": "early_stop_min_delta plateau_delta",
    "`plateau_window`": "early_stop_window",
    "`plateau_min_steps`": "early_stop_min_steps",
    "a stream whose loss is not finite ends": "loss_watchdog_threshold loss_watchdog_patience logging_nan_inf_filter",
    "checkpoints always hold what resuming needs, as safetensors": "save_only_model save_safetensors save_on_each_node",
    # machinery
    "every stream trains in a process on one device": "ddp world_size local_rank accelerator_config parallelism_config "
    "qlora_sharded_model_loading use_mca split_batches tensor_parallel_size log_on_each_node",
    "`placement.gpus`": "device no_cuda use_cpu use_mps_device",
    "a base lies whole on its stream's device, since weights that are moved there for every step make each many times slower; one "
    "that does not fit is refused beforehand: `adapter: qlora` needs about a quarter": "device_map max_memory gpu_memory_limit "
    "low_cpu_mem_usage offload_folder offload_state_dict offload_buffers quantization_device_map",
    "the log, metrics.db and the dashboard hold what is measured; `swarm export` writes it": "report_to use_tensorboard "
    "logging_dir project plot_loss profiler_steps skip_memory_metrics debug log_level log_level_replica disable_tqdm verbose "
    "print_param_status metric_logger",
    "what is promoted lies in the run's folder; nothing is uploaded": "push_to_hub push_dataset_to_hub",
    "training, judging and promoting are all done by `swarm run`": "do_train seed_everything",
    "use what was trained with `swarm ask` and `swarm merge`": "infer_backend qat ptq vllm trl",
}
PATTERNS = (
    (r"fsdp|deepspeed|ddp_|accelerate_|ray_|megatron_", "every stream trains in a process on one device"),
    (r"wandb_|mlflow_|comet_|swanlab_|use_wandb|use_mlflow|use_comet|use_swanlab|trackio_|gradio_|profil", "the log, metrics.db and the dashboard hold what is measured; `swarm export` writes it"),
    (r"hub_", "what is promoted lies in the run's folder; nothing is uploaded"),
    (r"dataloader_", "rows are read ahead by the trainer itself"),
    (r"(?:use_)?(?:galore|apollo|badam|lomo|adalomo|muon|dion|lisa)", "see `optimizer` for what can be taken"),
    (r"ppo_|grpo_|kto_|pref_|dpo_|reward_model|rl_|simpo_", "see `method` for what can be taken"),
    (r"relora|oft_|module_dropout|freeze_|vera_|loha_", "see `adapter` for what can be taken"),
    (r"flash_attn", "`attn_implementation`"),
    (r"sample_packing|pretrain_multipack", "`packing: bfd`"),
    (r"liger_", "`use_liger_kernel`, with the layers that Liger takes by itself"),
    (r"unsloth_|pose_|use_pose|xformers|cut_cross_entropy", "the libraries' own kernels are used"),
    (r"image_|video_|audio_", "text alone is trained on: rows with images or sound are refused"),
    (r"export_", "write what was trained with `swarm merge` or `swarm export`"),
    (r"bench_", "judging is on held-out rows alone"),
    (r"total_|axolotl_", "counted by the program itself"),
)  # fmt: skip
"""Beginnings of keys that stand for a whole feature."""

DATASET = {
    "`path`": "file files dataset",
    "`path`: a name on the hub, a file or a pattern": "name data_files ds_type shards shards_idx preprocess_shards revision "
    "trust_remote_code subset hf_hub_url ms_hub_url script_url file_name folder skip input_transform input_format",
    "`type`": "formatting conversation",
    "`messages`": "field_messages conversations field_conversations",
    "`tools`": "field_tools",
    "`prompt`": "field_instruction instruction prompt_column input field_input query field_prompt field_human question",
    "`completion`": "field_output output response completion_column answer field_completion field_model chosen field_chosen",
    "`text`": "field text_column",
    "`limit`": "max_samples num_samples",
    "roles are read as they are: user, assistant, system, tool, and human and gpt of ShareGPT": "roles tags role_tag content_tag "
    "user_tag assistant_tag message_field_role message_field_content message_property_mappings observation_tag function_tag "
    "system_tag",
    "`train_on`, in the stream; a message's own `train` or `weight` is honoured": "roles_to_train train_on_eos train_on_split "
    "message_field_training message_field_training_detail train_on_last_step_only",
    "`system_prompt`; a row's own system message wins": "system_format field_system system drop_system_message",
    "`prompt_template`": "prompt_format format instruction_template",
    "`no_input_template`": "no_input_format",
    "the chat template is the base's own: save another with its tokenizer": "chat_template chat_template_jinja split_thinking "
    "field_thinking template_thinking_key completion_format chosen_format rejected_format "
    "step_separator",
    "see `method` for what can be taken": "ranking rejected field_rejected field_label kto_tag logprobs_field temperature "
    "max_completion_length",
    "`weight`": "weights probability sampling_ratio",
    "text alone is trained on": "images videos audios columns",
}
PLACEMENT = {
    "`gpus`": "devices gpu_ids cuda_visible_devices",
    "`streams_per_gpu` or `cpu_streams`": "max_concurrent max_streams",
}
PROMOTION = {
    "`metric`": "metric_for_best_model",
    "`goal: max` or `goal: min`": "greater_is_better",
    "`goal`": "direction mode",
    "`must_beat`": "threshold",
}
RUN = {
    "`runs_dir`": "output_dir output",
    "each run has a folder of its own": "overwrite_output_dir",
    "`name`": "run_name",
    "`defaults`": "default",
    "`streams`": "runs experiments",
    "`retries`": "max_retries",
    "`lease_seconds`": "lease",
}


def _by_key(words: Mapping[str, str]) -> dict[str, str]:
    return {key: meaning for meaning, keys in words.items() for key in keys.split()}


ELSEWHERE: dict[type[Settings], dict[str, str]] = {
    StreamSettings: _by_key(STREAM),
    Dataset: _by_key(DATASET),
    Placement: _by_key(PLACEMENT),
    Promotion: _by_key(PROMOTION),
    RunSettings: _by_key(RUN),
}
"""The equivalent of a key of another tool, by the group of settings in which it would be written."""


def meaning_of(key: str, group: type[Settings]) -> str | None:
    """A setting in backticks, or a sentence; None for a key that no tool is known to have."""
    if known := ELSEWHERE.get(group, {}).get(key):
        return known
    if group is StreamSettings:
        return next((words for pattern, words in PATTERNS if re.match(pattern, key)), None)
    return None
