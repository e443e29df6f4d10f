"""The engine `trl`: one stream through a trainer of TRL; settings become its arguments, and a loss that is not finite ends it."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from accelerate.state import AcceleratorState  # type: ignore[import-untyped]  # ships no types
from datasets import Dataset
from peft import PeftModel
from torch import nn
from torch.optim.lr_scheduler import LambdaLR, LRScheduler
from transformers import PreTrainedTokenizerBase, PrinterCallback, Trainer, TrainerCallback, set_seed
from trl.trainer.sft_config import SFTConfig
from trl.trainer.sft_trainer import SFTTrainer

from swarm import kinds
from swarm.errors import UserError
from swarm.settings import StreamSettings
from trainer import bases, training
from trainer.callback import Steers
from trainer.data.prepared import TRAIN, rows_to_choose_by
from trainer.data.tokens import IGNORED
from trainer.engines.below import Below, stand_below
from trainer.engines.callbacks import Begin, Figures, NotFinite, Saves, Steps
from trainer.engines.kernels import use_other_kernels
from trainer.inspection import facts_of_model
from trainer.judge.heldout import held_out_figures
from trainer.loading import compute_dtype, load_base, load_tokenizer, new_adapter
from trainer.loop.schedules import NamedSchedule
from trainer.place import Place
from trainer.progress import TrainingProgress


def train(progress: TrainingProgress) -> None:
    """The whole training, up to its last checkpoint."""
    began = time.monotonic()
    training.forget_peak(progress.place)
    steps, made = _prepared(progress)
    progress.load_seconds = time.monotonic() - began
    resumed = progress.resumed
    progress.lease.check()
    try:
        made.train(resume_from_checkpoint=str(resumed.folder) if resumed else None)
    except NotFinite as error:
        progress.lose_step(error.step, made.state.max_steps)
        raise UserError(progress.assign.stream, str(error), "lower learning_rate") from error
    training.refuse_unmoved(progress, moved=steps.moved)


def _prepared(progress: TrainingProgress) -> tuple[Steps, OfOneStream]:
    settings, place = progress.assign.settings, progress.place
    base_folder = bases.folder_of(settings.base_model)
    model, below = _with_adapter(settings, base_folder, place)
    progress.trainable = sum(value.numel() for value in model.parameters() if value.requires_grad)
    prepared = place.run_folder / (progress.assign.prepared or "")
    judged = rows_to_choose_by(prepared) if settings.evaluates_itself else []
    objective = kinds.method(settings.method).objective(settings)
    controller = kinds.controller(settings.controller).begin(settings)
    steers = [Steers(controller)] if controller else []
    steps = Steps(progress, lambda: held_out_figures(objective.losses(model, judged, lambda: None)), *steers)
    made: OfOneStream = kinds.method(settings.method).trainer(
        Ingredients(
            settings=settings,
            model=model,
            below=below,
            tokenizer=load_tokenizer(base_folder, trust_remote_code=settings.trust_remote_code),
            rows=Dataset.from_file(str(prepared / TRAIN)),
            folder=progress.staging,
            dtype=compute_dtype(settings, place),
            on_gpu=place.on_gpu,
            pins=place.on_cuda,
            callbacks=[*steers, Figures(progress), steps, Saves(progress, progress.staging), Begin(model, progress)],
        )
    )
    steps.trainer = made
    return steps, made


def _with_adapter(settings: StreamSettings, base_folder: Path, place: Place) -> tuple[PeftModel, Below | None]:
    base = load_base(base_folder, settings, place)
    use_other_kernels(base, settings)
    facts = facts_of_model(base)
    set_seed(settings.seed)  # A's random start is the stream's own
    model = new_adapter(base, settings)
    model.peft_config["default"].base_model_name_or_path = bases.name_in_adapters(settings.base_model)
    return model, stand_below(model, facts, settings)


@dataclass(frozen=True)
class Ingredients:
    """What a trainer of one stream is made of."""

    settings: StreamSettings
    model: PeftModel
    below: Below | None
    tokenizer: PreTrainedTokenizerBase
    rows: Dataset
    """As they were prepared (`trainer.data.prepared`)."""
    folder: Path
    """Where checkpoints are staged."""
    dtype: torch.dtype
    on_gpu: bool
    pins: bool
    """Whether batches are copied from pinned memory: CUDA's alone."""
    callbacks: Sequence[TrainerCallback]


class OfOneStream(Trainer):
    """What every trainer of a stream does beside its own: it stops at the first loss that is not finite, before it reaches the weights."""

    settings: StreamSettings
    below: Below | None = None
    """What checkpoints hold beside the adapter that is trained."""
    trained_tokens: int = 0
    """In this attempt, pads left out."""
    _loss_of_step: float = 0.0
    """Of its micro-batches so far."""
    _supervised: int = 0
    """Tokens that the loss counted in this attempt."""

    def step_loss(self) -> float:
        """Of the step that has been made; the next one begins."""
        loss, self._loss_of_step = self._loss_of_step, 0.0
        return loss

    def training_step(self, model: nn.Module, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> torch.Tensor:
        self.trained_tokens += sum(int(inputs[name].sum()) for name in MASKS if name in inputs)
        if (labels := inputs.get("labels")) is not None:
            self._supervised += int((labels != IGNORED).sum())
        loss: torch.Tensor = super().training_step(model, inputs, *args, **kwargs)
        if not torch.isfinite(loss).all():
            raise NotFinite("loss", self.state.global_step + 1)
        self._loss_of_step += float(loss)
        return loss

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        supervised = {"supervised_tokens": float(self._supervised)} if self._supervised else {}
        super().log({**logs, "num_tokens": float(self.trained_tokens), **supervised}, *args, **kwargs)

    def _save(self, output_dir: str | None = None, state_dict: dict[str, torch.Tensor] | None = None) -> None:
        super()._save(output_dir, state_dict)
        if self.below and output_dir:
            self.below.complete(Path(output_dir))

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        if self.below:
            self.below.read(Path(resume_from_checkpoint))
        else:
            super()._load_from_checkpoint(resume_from_checkpoint, model)

    def create_scheduler(self, num_training_steps: int, optimizer: torch.optim.Optimizer | None = None) -> LRScheduler:
        """The schedule of the shared engine."""
        schedule = NamedSchedule.of(self.settings, num_training_steps)
        stepped = optimizer or self.optimizer
        assert stepped is not None
        self.lr_scheduler = LambdaLR(stepped, lambda step: schedule(step))  # noqa: PLW0108  of an object the state would be saved
        return self.lr_scheduler


MASKS = ("attention_mask", "chosen_attention_mask", "rejected_attention_mask")
"""Of tokens that are trained on, in the batches of all trainers."""


class StreamTrainer(OfOneStream, SFTTrainer):
    """TRL's SFTTrainer for one stream."""


def trainer(ingredients: Ingredients, kind: type[StreamTrainer] = StreamTrainer) -> StreamTrainer:
    """`kind` may compute another loss."""
    loss = getattr(ingredients.settings, "loss", "nll")  # of `method: sft`
    return made(
        ingredients,
        lambda: kind(
            model=ingredients.model,
            args=SFTConfig(
                **arguments(ingredients), dataset_kwargs={"skip_prepare_dataset": True}, max_length=None, packing=False,
                loss_type=loss,
            ),
            train_dataset=ingredients.rows.select_columns(["input_ids", "labels"]),
            processing_class=ingredients.tokenizer,
            callbacks=list(ingredients.callbacks),
            optimizer_cls_and_kwargs=_optimizer(ingredients.settings),
        ),
    )  # fmt: skip


T = TypeVar("T", bound=OfOneStream)
PROBE_TOKENS = 8
PROBE_TOLERANCE = 0.02
"""Relative: the model's loss may be of bf16 logits, TRL's is not."""


def made(ingredients: Ingredients, make: Callable[[], T]) -> T:
    """A trainer that is ready, made in a process that has made others."""
    # accelerate keeps the precision of a process's first trainer for all later ones; a worker trains one stream after another.
    AcceleratorState._reset_state(reset_partial_state=True)
    kept = {name: value.data for name, value in ingredients.model.named_parameters() if value.requires_grad}
    trainer = make()
    trainer.settings, trainer.below = ingredients.settings, ingredients.below
    trainer.remove_callback(PrinterCallback)  # figures go over the bus
    # TRL casts A and B to bf16 on a quantised base, which loses small updates: the fp32 ones are put back (nothing holds them yet).
    for name, value in ingredients.model.named_parameters():
        if name in kept:
            value.data = kept[name]
    _refuse_another_loss(ingredients.model)
    return trainer


@torch.no_grad()
def _refuse_another_loss(model: Any) -> None:
    """TRL multiplies last hidden states with the head itself, and some families do more between them.  Raises UserError."""
    inside = model.get_base_model()
    if "forward" not in vars(inside):
        return  # this trainer of TRL calls the model's own forward pass
    was_training = inside.training
    inside.eval()
    ids = (torch.arange(PROBE_TOKENS, device=inside.device) + 3)[None] % inside.config.get_text_config().vocab_size
    own, trl = (float(inside(input_ids=ids, labels=ids, **how).loss) for how in ({}, {"fused_lm_head": True}))
    inside.train(was_training)
    if abs(own - trl) > PROBE_TOLERANCE * abs(own):
        what = f"{type(inside).__name__} does more with its hidden states than TRL's trainers do: loss {own:.4f}, theirs {trl:.4f}"
        raise UserError("base_model", what, "take another base")


def optimizer_of(ingredients: Ingredients) -> torch.optim.Optimizer:
    """For trainers that take no class of one: over all that is trained."""
    kind, arguments = _optimizer(ingredients.settings)
    trained = [value for value in ingredients.model.parameters() if value.requires_grad]
    made: Any = kind  # torch's base class knows no `lr`
    optimizer: torch.optim.Optimizer = made(
        [{"params": trained, "weight_decay": ingredients.settings.weight_decay}], **arguments
    )
    return optimizer


def _optimizer(settings: StreamSettings) -> tuple[type[torch.optim.Optimizer], dict[str, Any]]:
    made, arguments = kinds.optimizer(settings.optimizer).made_of(settings)
    return made, {"lr": settings.learning_rate, **arguments}


def arguments(ingredients: Ingredients) -> dict[str, Any]:
    """Of every trainer's config: rows come tokenised, cut and labelled."""
    settings = ingredients.settings
    return {
        "output_dir": str(ingredients.folder),
        # optimisation
        "per_device_train_batch_size": settings.micro_batch_size,
        "gradient_accumulation_steps": settings.gradient_accumulation_steps,
        "num_train_epochs": settings.num_epochs,
        "max_steps": settings.max_steps or -1,
        "learning_rate": settings.learning_rate,
        "weight_decay": settings.weight_decay,
        "max_grad_norm": settings.max_grad_norm,
        "seed": settings.seed,
        "use_liger_kernel": settings.use_liger_kernel,
        "liger_kernel_config": {"fused_linear_cross_entropy": False}
        if settings.use_liger_kernel
        else None,  # the method's own loss
        "router_aux_loss_coef": 0.0,  # routers and experts get no adapter: the loss is the words' alone, as on the shared loop
        # device: said out loud, since SFTConfig's own defaults are for GPUs
        "use_cpu": not ingredients.on_gpu,
        "bf16": ingredients.dtype is torch.bfloat16,
        "gradient_checkpointing": settings.gradient_checkpointing,
        "gradient_checkpointing_kwargs": {"use_reentrant": False} if settings.gradient_checkpointing else None,
        "dataloader_pin_memory": ingredients.pins,
        # cadence: checkpoints are kept and removed by `checkpoint`, held-out loss is ours
        "logging_steps": settings.logging_steps,
        "logging_nan_inf_filter": False,
        "save_strategy": "steps",
        "save_steps": settings.save_steps,
        "save_total_limit": None,
        "eval_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
    }
