"""Makes a small encoder, a BERT with a vocabulary of its own, to try `method: classify` and `method: mlm` without a download.

    python -m trainer.embedded.encoder my-encoder configs/data/style/topics.jsonl     # a folder, and files with the words that it is to know

Its weights are random: it knows nothing until it is tuned.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain, islice
from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import BertConfig, BertForMaskedLM, PreTrainedTokenizerFast

from swarm.errors import UserError
from swarm.settings import Dataset
from trainer.data.bad import BadRow
from trainer.data.files import raw_rows
from trainer.quiet import quieten

PAD, UNKNOWN, BEGIN, END, MASK = "[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"
SPECIAL = (PAD, UNKNOWN, BEGIN, END, MASK)
VOCABULARY_TOKENS = 2000
CONTEXT_TOKENS = 256
SMALL = {"hidden_size": 128, "num_attention_heads": 4, "num_hidden_layers": 2, "intermediate_size": 256}


def main(words: Sequence[str]) -> int:
    if len(words) < 2:
        print("usage: python -m trainer.embedded.encoder FOLDER FILE...", file=sys.stderr)
        return 2
    quieten()
    transformers.utils.logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        texts = [text for path in words[1:] for text in _texts_of(path)]
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    save(Path(words[0]), texts)
    return 0


def _texts_of(path: str) -> Iterator[str]:
    """All texts in all columns: two sentences and their label have no type of their own.  Raises UserError."""
    for row in raw_rows(Dataset(path=path)):
        if isinstance(row, BadRow):
            raise UserError(row.where, row.what, row.fix)
        yield from _texts_in(row.values)


def _texts_in(value: object) -> Iterator[str]:
    match value:
        case str():
            yield value
        case Mapping():
            yield from chain.from_iterable(map(_texts_in, value.values()))
        case list() | tuple():
            yield from chain.from_iterable(map(_texts_in, value))
        case _:  # numbers and the like
            return


def save(folder: Path, texts: Iterable[str], **changes: Any) -> Path:
    """`changes`: of BertConfig.  Equal texts give equal files."""
    tokenizer = _tokenizer(texts, changes.get("max_position_embeddings", CONTEXT_TOKENS))
    tokenizer.save_pretrained(folder)
    config: dict[str, Any] = {"max_position_embeddings": CONTEXT_TOKENS, "pad_token_id": 0, **SMALL, **changes}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        BertForMaskedLM(BertConfig(vocab_size=len(tokenizer), **config)).save_pretrained(folder)
    return folder


def _tokenizer(texts: Iterable[str], context: int) -> PreTrainedTokenizerFast:
    """WordPiece in lower case, as BERT's (arXiv 1810.04805): the most frequent words, and all characters to spell others with."""
    normalizer, splitter = normalizers.BertNormalizer(lowercase=True), pre_tokenizers.BertPreTokenizer()
    counts = Counter(word for text in texts for word, _ in splitter.pre_tokenize_str(normalizer.normalize_str(text)))
    characters = sorted({character for word in counts for character in word})
    words = sorted(counts, key=lambda word: (-counts[word], word))
    known = dict.fromkeys([*SPECIAL, *characters, *(f"##{character}" for character in characters), *words])
    vocabulary = {word: number for number, word in enumerate(islice(known, VOCABULARY_TOKENS))}
    inner = Tokenizer(models.WordPiece(vocabulary, unk_token=UNKNOWN))
    inner.normalizer, inner.pre_tokenizer, inner.decoder = normalizer, splitter, decoders.WordPiece()
    ends = [(word, vocabulary[word]) for word in (BEGIN, END)]
    inner.post_processor = processors.TemplateProcessing(
        single=f"{BEGIN} $A {END}", pair=f"{BEGIN} $A {END} $B:1 {END}:1", special_tokens=ends
    )
    return PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=inner, model_max_length=context,
        pad_token=PAD, unk_token=UNKNOWN, cls_token=BEGIN, sep_token=END, mask_token=MASK,
    )  # fmt: skip


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
