"""Peak memory of merging an eight-shard, 2 GB random model, above the imports, beside the largest shard (aim: <= 2 x + 200 MB).

python tests/benchmarks/bench_merge.py [FOLDER]
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

SHARDS = 8
HERE = str(Path(__file__).parent)
PROGRAM = """
import sys
from pathlib import Path
from trainer import resident
from trainer.ship.merge import merge, recipe_of
import peft, transformers
floor = resident.resident_bytes(); resident.forget_peak()
merge(recipe_of([Path(sys.argv[2])], None, "linear", 0.5), sys.argv[1], Path(sys.argv[3]), probe="layers")
print(resident.peak_bytes_above(floor))
"""


def make(folder: Path) -> tuple[Path, Path]:
    """A random Llama of about 1 G parameters in bfloat16, and a LoRA of rank 16 on all its linear layers."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import LlamaConfig, LlamaForCausalLM

    shape = {"hidden_size": 2048, "intermediate_size": 5632, "num_hidden_layers": 20, "num_attention_heads": 16}
    torch.set_default_dtype(torch.bfloat16)
    base = LlamaForCausalLM(LlamaConfig(vocab_size=32000, num_key_value_heads=4, tie_word_embeddings=False, **shape))
    size = sum(value.numel() for value in base.parameters()) * 2
    base.save_pretrained(folder / "base", max_shard_size=f"{size // SHARDS // 10**6 + 20}MB")
    (folder / "base/tokenizer.json").write_text("{}")
    model = get_peft_model(base, LoraConfig(r=16, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM"))
    model.peft_config["default"].base_model_name_or_path = str(folder / "base")
    model.save_pretrained(folder / "adapter")
    return folder / "base", folder / "adapter"


def main() -> None:
    with tempfile.TemporaryDirectory(dir=sys.argv[1] if len(sys.argv) > 1 else None) as place:
        folder = Path(place)
        program = f"import sys; sys.path.insert(0, {HERE!r}); import bench_merge, pathlib; bench_merge.make(pathlib.Path({place!r}))"
        subprocess.run([sys.executable, "-c", program], check=True, capture_output=True)
        words = [str(folder / name) for name in ("base", "adapter", "out")]
        done = subprocess.run([sys.executable, "-c", PROGRAM, *words], check=True, capture_output=True, text=True)
        shards = [path.stat().st_size for path in (folder / "base").glob("*.safetensors")]
        peak, largest = int(done.stdout), max(shards)
        print(json.dumps({"shards": len(shards), "model_mb": sum(shards) // 10**6, "largest_shard_mb": largest // 10**6,
                          "peak_mb": peak // 10**6, "peak / largest": round(peak / largest, 2),
                          "within 2 x + 200 MB": peak <= 2 * largest + 200e6}, indent=1))  # fmt: skip


if __name__ == "__main__":
    main()
