"""Documents as tokens, and cut into sequences of `sequence_len` tokens (`type: document`).

Documents are held out, left out and weighted whole, as any row is; only then they are put end to end and cut.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain, groupby
from operator import itemgetter
from pathlib import Path

from transformers import PreTrainedTokenizerBase

from swarm.errors import UserError
from swarm.settings import Dataset, Part, TokenIds
from trainer.data.prepared import Rows
from trainer.data.tokens import IGNORED, Tokens


def ids_of_document(text: str, dataset: Dataset, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Empty where the text has no token.  Prefix and suffix that are text are tokenised with it, ids are put around it."""
    before, after = dataset.document_prefix, dataset.document_suffix
    words = (before if isinstance(before, str) else "") + text + (after if isinstance(after, str) else "")
    ids = list(tokenizer(words, add_special_tokens=False, verbose=False)["input_ids"]) if text.strip() else []
    if not before and ids[:1] == [tokenizer.bos_token_id]:
        del ids[0]  # a sequence has its own
    if not ids:
        return []
    return [*ids_around(before, "document_prefix", tokenizer), *ids, *ids_around(after, "document_suffix", tokenizer)]


def refuse_unknown_ids(dataset: Dataset, tokenizer: PreTrainedTokenizerBase) -> None:
    """Raises UserError for an id around its documents that is no token of the base: no row is to blame."""
    ids_around(dataset.document_prefix, "document_prefix", tokenizer)
    ids_around(dataset.document_suffix, "document_suffix", tokenizer)


def ids_around(given: TokenIds, setting: str, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """What a setting puts there besides text.  Raises UserError for an id that is no token of the base."""
    match given:
        case None:
            own = {"document_suffix": tokenizer.eos_token_id, "sequence_prefix": tokenizer.bos_token_id}.get(setting)
            return [own] if isinstance(own, int) else []
        case str():
            return []
        case _:
            return _known([given] if isinstance(given, int) else given, setting, tokenizer)


def _known(ids: Sequence[int], setting: str, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    for token in ids:
        if not 0 <= token < len(tokenizer):
            what = f"{token} is no token of the base, which has 0 to {len(tokenizer) - 1}"
            raise UserError(setting, what, "look ids up in its tokenizer.json, or write text")
    return list(ids)


def masked_tokens(mask: bool | int | list[int], tokenizer: PreTrainedTokenizerBase) -> frozenset[int]:
    if isinstance(mask, bool):
        return frozenset(tokenizer.all_special_ids if mask else ())
    return frozenset(_known([mask] if isinstance(mask, int) else mask, "mask_tokens", tokenizer))


@dataclass
class Slicer:
    """Puts documents end to end and cuts what comes of it; each sequence begins with `prefix`."""

    length: int
    prefix: Sequence[int] = ()
    masked: frozenset[int] = frozenset()
    drop_tails: bool = False
    isolated: bool = False
    prefix_class: int = 0
    dropped: int = 0
    """Tokens of documents in no sequence."""
    untaught: int = 0
    """Sequences that were left out since all that they predict is masked."""
    _ids: list[int] = field(default_factory=list)
    """Of the open sequence, its prefix left out."""
    _classes: list[int] = field(default_factory=list)
    _documents: dict[bytes, None] = field(default_factory=dict)
    """Fingerprints of those that it holds, in order."""

    @property
    def room(self) -> int:
        """For tokens of documents in a sequence."""
        return self.length - len(self.prefix)

    def sequences(self, documents: Iterator[Tokens], *, keeps_last: bool) -> Iterator[Tokens]:
        """Those that teach something.  `keeps_last`: the last one although it is shorter than the others."""
        closed = chain.from_iterable(map(self._cut, documents))
        for one in chain(closed, self._rest(keeps_last)):
            if any(_is_predicted(one)):
                yield one
            else:
                self.untaught += 1

    def _rest(self, keeps_last: bool) -> Iterator[Tokens]:
        if self._ids and keeps_last:
            yield self._closed()
        self.dropped += len(self._ids)

    def _cut(self, document: Tokens) -> Iterator[Tokens]:
        at = 0
        while at < len(document.ids):
            end = at + self.room - len(self._ids)
            taken = document.ids[at:end]
            self._classes += document.classes[at:end]
            at += len(taken)
            self._ids += taken
            self._documents[document.fingerprint] = None
            if len(self._ids) == self.room:
                yield self._closed()
                if self.drop_tails:
                    break
        self.dropped += len(document.ids) - at
        if self.isolated and self._ids:
            yield self._closed()

    def _closed(self) -> Tokens:
        ids = [*self.prefix, *self._ids]
        labels = [IGNORED if token in self.masked else token for token in ids]
        classes = [*[self.prefix_class] * len(self.prefix), *self._classes] if self._classes else []
        classes = [0 if ids[at] in self.masked else one for at, one in enumerate(classes)]
        made = Tokens(ids, labels, answer_start=0, fingerprint=b"".join(self._documents), classes=classes)
        self._ids, self._classes, self._documents = [], [], {}
        return made


def _is_predicted(sequence: Tokens) -> Iterator[bool]:
    """Of each of its tokens that the loss counts; the first one follows none."""
    return (label != IGNORED for label in sequence.labels[1:])


@dataclass
class Cutting:
    """How a stream cuts its documents."""

    settings: Part
    prefix: list[int]
    masked: frozenset[int]
    dropped: int = 0
    """Tokens to train on that are in no sequence."""
    untaught: int = 0
    """Sequences to train on that were left out since all that they predict is masked."""

    @classmethod
    def of(cls, settings: Part, tokenizer: PreTrainedTokenizerBase) -> Cutting:
        """Raises UserError where a sequence has no room for a document."""
        given = settings.sequence_prefix
        words = tokenizer(given, add_special_tokens=False)["input_ids"] if isinstance(given, str) else []
        prefix = [*words, *ids_around(given, "sequence_prefix", tokenizer)]
        if len(prefix) >= settings.sequence_len:
            what = f"its {len(prefix)} tokens leave no room in a sequence of {settings.sequence_len}"
            raise UserError("sequence_prefix", what, "write a shorter one, or raise sequence_len")
        return cls(settings, prefix, masked_tokens(settings.mask_tokens, tokenizer))

    def to_train_on(
        self, path: Path, datasets: Sequence[Dataset], chosen: Mapping[int, Sequence[int]]
    ) -> Iterator[Tokens]:
        """`chosen`: by the number of its dataset the documents to train on, as numbers of rows of the file at `path`."""
        most = self.settings.max_sequences
        if most is None:
            yield from self._trained(path, datasets, chosen)
            return
        count = sum(1 for _ in self._trained(path, datasets, chosen))  # none is kept in memory
        kept = set(random.Random(self.settings.mix_seed).sample(range(count), min(most, count)))
        yield from (one for number, one in enumerate(self._trained(path, datasets, chosen)) if number in kept)

    def _trained(
        self, path: Path, datasets: Sequence[Dataset], chosen: Mapping[int, Sequence[int]]
    ) -> Iterator[Tokens]:
        rows, self.dropped, self.untaught = Rows(path), 0, 0
        ordered = [_ordered(datasets[source], numbers, rows) for source, numbers in chosen.items()]
        for source, numbers in zip(chosen, self._together(ordered), strict=False):  # mixed: all have one prefix_class
            slicer = self._slicer(datasets[source].prefix_class, drop_tails=self.settings.drop_tails)
            yield from slicer.sequences((rows[number] for number in numbers), keeps_last=False)
            self.dropped += slicer.dropped
            self.untaught += slicer.untaught

    def _together(self, ordered: list[list[int]]) -> list[list[int]]:
        if not self.settings.mix_datasets:
            return ordered
        mixed = list(chain.from_iterable(ordered))
        random.Random(self.settings.mix_seed).shuffle(mixed)
        return [mixed]

    def held_out(self, rows: Iterable[tuple[int, Tokens]], datasets: Sequence[Dataset]) -> Iterator[Tokens]:
        """Rows, each after the number of its dataset, as they are judged: all of each document, in order."""
        for source, group in groupby(rows, key=itemgetter(0)):
            own = (row for _, row in group)
            is_cut = datasets[source].type == "document"
            yield from self._slicer(datasets[source].prefix_class).sequences(own, keeps_last=True) if is_cut else own

    def _slicer(self, prefix_class: int = 0, *, drop_tails: bool = False) -> Slicer:
        settings = self.settings
        return Slicer(
            settings.sequence_len,
            self.prefix,
            self.masked,
            drop_tails,
            settings.isolate_documents,
            prefix_class,
        )


def _ordered(dataset: Dataset, numbers: Sequence[int], rows: Rows) -> list[int]:
    """A dataset's documents in random order, as many as `max_tokens` allows."""
    shuffled = list(numbers)
    random.Random(dataset.shuffle_seed).shuffle(shuffled)
    if dataset.max_tokens is None:
        return shuffled
    taken, tokens = [], 0
    for number in shuffled:
        tokens += len(rows[number].ids)
        if tokens > dataset.max_tokens:
            break
        taken.append(number)
    if not taken and shuffled:
        what = f"{dataset.max_tokens} tokens do not hold the first document that is drawn"
        raise UserError("max_tokens", what, "raise it, or split the documents")
    return taken
