"""Makes the embedded base model again from generated text; streams never import it.

    python -m trainer.embedded.pretrain --out DIR        # data, tokenizer, training, model card
    python -m trainer.embedded.pretrain --check DIR      # the data's hash and the tokenizer, against those shipped in DIR
    python -m trainer.embedded.pretrain --compare A B    # are the weights of B as good as those of A, within the tolerance

The data and the tokenizer come out equal to the bit on every machine. The weights do not: sums are taken in another order by every
BLAS build and thread count. `--compare` therefore asks for an equal held-out loss, not for equal weights. On a machine with
other work set OMP_WAIT_POLICY=PASSIVE: threads that spin while they wait for each other then make
a step at least twice as long.
"""

import argparse
import math
import sys
import time
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

import torch
from torch.nn import functional
from transformers import AutoTokenizer, GenerationConfig, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from trainer.embedded import card, text
from trainer.embedded.card import HELDOUT_SAMPLES
from trainer.embedded.measure import held_out_loss
from trainer.embedded.rows import Row, packed, row, tensors
from trainer.embedded.vocabulary import LONGEST_INPUT_TOKENS, PAD, mark_id, train_tokenizer

SHIPPED = Path(__file__).parent / "tiny-toon"

# Data
SAMPLES: dict[text.Size, int] = {"record": 50_000, "short": 90_000, "long": 12_000}
TOKENIZER_SAMPLES = 20_000
DATA_SHA256 = "414f0a6490ebc7c56ace82796bf3f9de59c92f3e8dc414152a4572a4f5721ac2"

# Training
RECORD_STEPS, MIXED_STEPS = 1_000, 2_000
"""First single records alone, where copying is learned within 2 million tokens. An earlier draft that began with the whole mixture
(and had longer numbers and another rate) still stood at 1.3 nats an answer token after 4.7 million."""
STEPS = RECORD_STEPS + MIXED_STEPS
LONG_ROWS_EVERY = 6
"""Every sixth mixed step trains rows of the full length, so that all positions are learned; the others are 1.2 times as fast."""
ROW_TOKENS: dict[text.Size, int] = {"record": 96, "short": 256, "long": LONGEST_INPUT_TOKENS}
ROWS_PER_STEP: dict[text.Size, int] = {"record": 21, "short": 16, "long": 4}
INITIAL_WEIGHT_DEVIATION = 0.06
"""Near 1 / sqrt(width), so that attention does not start almost even; trials of 100 seconds could not tell it from the usual 0.02."""
PEAK_LEARNING_RATE = 1.5e-3
LAST_LEARNING_RATE_SHARE = 0.02
WARMUP_STEPS = 100
WEIGHT_DECAY = 0.1
LARGEST_GRADIENT_NORM = 1.0
SEED = 1
REPORT_EVERY_STEPS = 100
CHECKPOINT_EVERY_STEPS = 400

REMAKE_TOLERANCE_NATS = 0.02
"""How much the held-out losses (nats per answer token) of two makes may differ."""


def shape(vocabulary_tokens: int, tokenizer: PreTrainedTokenizerFast) -> LlamaConfig:
    """1.7 million parameters; widths are multiples of 64, the block of NF4 quantisation."""
    return LlamaConfig(
        vocab_size=vocabulary_tokens,
        hidden_size=192,
        intermediate_size=384,
        num_hidden_layers=4,
        num_attention_heads=6,
        num_key_value_heads=6,
        max_position_embeddings=LONGEST_INPUT_TOKENS,
        tie_word_embeddings=True,
        initializer_range=INITIAL_WEIGHT_DEVIATION,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        dtype="float32",
    )


def all_samples() -> Iterator[text.Sample]:
    for size, count in SAMPLES.items():
        yield from text.samples("train", size, count)


def batches(tokenizer: PreTrainedTokenizerFast) -> Iterator[list[Row]]:
    rows = {size: _rows(tokenizer, size) for size in SAMPLES}
    for step in range(STEPS):
        size = size_at(step)
        yield list(islice(rows[size], ROWS_PER_STEP[size]))


def size_at(step: int) -> text.Size:
    if step < RECORD_STEPS:
        return "record"
    return "long" if step % LONG_ROWS_EVERY == LONG_ROWS_EVERY - 1 else "short"


def _rows(tokenizer: PreTrainedTokenizerFast, size: text.Size) -> Iterator[Row]:
    rows = (row(sample, tokenizer) for sample in text.samples("train", size, SAMPLES[size]))
    return packed(rows, ROW_TOKENS[size])


def learning_rate(step: int) -> float:
    """Linear warm-up, then a half cosine down to a small share of the peak."""
    if step < WARMUP_STEPS:
        return PEAK_LEARNING_RATE * (step + 1) / WARMUP_STEPS
    done = (step - WARMUP_STEPS) / max(1, STEPS - WARMUP_STEPS)
    share = LAST_LEARNING_RATE_SHARE + (1 - LAST_LEARNING_RATE_SHARE) * (1 + math.cos(math.pi * done)) / 2
    return PEAK_LEARNING_RATE * share


def optimizer_of(model: LlamaForCausalLM) -> torch.optim.AdamW:
    matrices = [weight for weight in model.parameters() if weight.ndim >= 2]
    norms = [weight for weight in model.parameters() if weight.ndim < 2]
    groups = [{"params": matrices, "weight_decay": WEIGHT_DECAY}, {"params": norms, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=PEAK_LEARNING_RATE, betas=(0.9, 0.95))


def loss_of(model: LlamaForCausalLM, rows: list[Row], pad_id: int) -> torch.Tensor:
    ids, weights = tensors(rows, pad_id)
    logits = model(input_ids=ids[:, :-1], use_cache=False).logits  # (rows, tokens - 1, vocabulary)
    losses = functional.cross_entropy(
        logits.flatten(0, 1), ids[:, 1:].flatten(), reduction="none"
    )  # (rows * (tokens - 1),)
    target_weights = weights[:, 1:].flatten()  # (rows * (tokens - 1),)
    return (losses * target_weights).sum() / target_weights.sum()


def train(tokenizer: PreTrainedTokenizerFast, out: Path) -> LlamaForCausalLM:
    torch.manual_seed(SEED)
    model = LlamaForCausalLM(shape(len(tokenizer), tokenizer))
    optimizer = optimizer_of(model)
    pad_id = mark_id(tokenizer, PAD)
    held_out = list(text.samples("heldout", "short", HELDOUT_SAMPLES))
    started = time.monotonic()
    for step, rows in enumerate(batches(tokenizer), start=1):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step - 1)
        loss = loss_of(model, rows, pad_id)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), LARGEST_GRADIENT_NORM)
        optimizer.step()
        optimizer.zero_grad()
        if step % REPORT_EVERY_STEPS == 0:
            answers = held_out_loss(model, tokenizer, held_out, answers_only=True)
            print(
                f"step {step}/{STEPS}  loss {loss.item():.4f}  held-out answers {answers.per_token:.4f} nats/token  "
                f"{time.monotonic() - started:.0f} s",
                flush=True,
            )
        if step % CHECKPOINT_EVERY_STEPS == 0 or step == STEPS:
            save(model, tokenizer, out)
    return model


def save(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, out: Path) -> None:
    model.generation_config = GenerationConfig(  # type: ignore[no-untyped-call]
        do_sample=False,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    model.save_pretrained(out)
    tokenizer.save_pretrained(out)


def load(folder: Path) -> tuple[LlamaForCausalLM, PreTrainedTokenizerFast]:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert isinstance(tokenizer, PreTrainedTokenizerFast)
    return LlamaForCausalLM.from_pretrained(folder), tokenizer


def data_problem() -> str | None:
    found = text.sha256(all_samples())
    print(f"data sha256 {found}")
    if found == DATA_SHA256:
        return None
    return f"trainer/embedded/text.py: the data's hash is {found}, not {DATA_SHA256}; undo the change or write the new hash and train again"


def make(out: Path) -> str | None:
    problem = data_problem()
    if problem:
        return problem
    out.mkdir(parents=True, exist_ok=True)
    tokenizer = train_tokenizer(text.samples("train", "short", TOKENIZER_SAMPLES))
    started = time.monotonic()
    model = train(tokenizer, out)
    facts = run_facts(time.monotonic() - started)
    card.write(out, model, tokenizer, facts)
    return None


def run_facts(seconds: float) -> dict[str, str | float | int]:
    """What the model card says of the training run."""
    slots = sum(ROWS_PER_STEP[size] * ROW_TOKENS[size] for size in map(size_at, range(STEPS)))
    return {
        "steps": STEPS, "tokens": slots, "rate": PEAK_LEARNING_RATE, "minutes": seconds / 60, "data_sha256": DATA_SHA256,
        "tolerance": REMAKE_TOLERANCE_NATS,
    }  # fmt: skip


def check(folder: Path) -> str | None:
    problem = data_problem()
    if problem:
        return problem
    if DATA_SHA256 not in (folder / "README.md").read_text(encoding="utf-8"):
        return f"{folder}/README.md: does not name the data's hash; make the model again with --out"
    made = train_tokenizer(text.samples("train", "short", TOKENIZER_SAMPLES))
    if made.backend_tokenizer.to_str() != load(folder)[1].backend_tokenizer.to_str():
        return f"{folder}/tokenizer.json: differs from the one made from the data; make the model again with --out"
    return None


def compare(first: Path, second: Path) -> str | None:
    held_out = list(text.samples("heldout", "short", HELDOUT_SAMPLES))
    losses = [held_out_loss(*load(folder), held_out, answers_only=True).per_token for folder in (first, second)]
    print(f"held-out answers: {losses[0]:.4f} and {losses[1]:.4f} nats/token; tolerance {REMAKE_TOLERANCE_NATS}")
    if abs(losses[0] - losses[1]) <= REMAKE_TOLERANCE_NATS:
        return None
    return f"{second}: held-out loss differs from {first} by more than {REMAKE_TOLERANCE_NATS} nats/token; was training cut short?"


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m trainer.embedded.pretrain", description=__doc__.splitlines()[0])
    wish = parser.add_mutually_exclusive_group(required=True)
    wish.add_argument("--out", type=Path, metavar="DIR", help=f"make the model into DIR; shipped in {SHIPPED.name}/")
    wish.add_argument("--check", type=Path, metavar="DIR", help="check data hash and tokenizer of the model in DIR")
    wish.add_argument("--compare", type=Path, nargs=2, metavar=("A", "B"), help="compare two makes by held-out loss")
    wishes = parser.parse_args(arguments)
    if wishes.out:
        problem = make(wishes.out)
    elif wishes.check:
        problem = check(wishes.check)
    else:
        problem = compare(*wishes.compare)
    if problem:
        print(problem, file=sys.stderr)
    return 1 if problem else 0


if __name__ == "__main__":
    sys.exit(main())
