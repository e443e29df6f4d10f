"""Text as token ids with their places, each run of characters by its author: control tokens are read where the template writes them only.

Elsewhere they are words like any others, so that nobody's text can end a turn or begin one.  Where no such word stands in a text the
ids are exactly the tokenizer's own.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerBase

from trainer.data.bad import NotProven
from trainer.data.render import Piece, Span
from trainer.data.templates import literal_text

PRIVATE = 0x100000
"""First of the characters (Unicode's last private plane) that stand for the template's control tokens while a text is encoded."""


@dataclass(frozen=True)
class Encoded:
    ids: list[int]
    places: list[Span]
    """For each token the characters [start, end) that it stands for."""

    def with_end(self, token: int) -> Encoded:
        end = self.places[-1][1] if self.places else 0
        return Encoded([*self.ids, token], [*self.places, (end, end)])


class Encoder:
    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self.tokenizer = tokenizer
        added = {index: token for index, token in tokenizer.added_tokens_decoder.items() if token.content}
        written = literal_text(tokenizer)
        self.special = {index: token.content for index, token in added.items() if token.special}
        self.of_template = {
            index: token.content for index, token in added.items() if not token.special and token.content in written
        }
        """Tokens that only count as control tokens because the template writes them: an answer may have them (a thought's marks, say)."""

    def encoded(self, text: str, pieces: Sequence[Piece], cuts: Sequence[int]) -> Encoded:
        """`cuts`: where answers begin and end, for tokenizers that do not tell places."""
        if not self.tokenizer.is_fast:
            return self._by_pieces(text, pieces, cuts)
        found = self._whole(text)
        if not any(self._misread(found, pieces)):
            return found
        return self._renamed(text, found, pieces)

    def _whole(self, text: str) -> Encoded:
        encoded = self.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
        return Encoded(list(encoded["input_ids"]), list(encoded["offset_mapping"]))

    def _misread(self, encoded: Encoded, pieces: Sequence[Piece]) -> list[bool]:
        """For each token whether it is a control token that touches somebody's words."""
        misread, at = [False] * len(encoded.ids), 0
        for index, (token, (start, end)) in enumerate(zip(encoded.ids, encoded.places, strict=True)):
            while at < len(pieces) and pieces[at].end <= start:
                at += 1
            if at < len(pieces) and pieces[at].start < end:
                misread[index] = token in self.special or (not pieces[at].is_answer and token in self.of_template)
        return misread

    # ---- where somebody's words look like control tokens ----

    @cached_property
    def _names(self) -> dict[int, str]:
        """For each control token a name of the same length that no text has."""
        controls = {**self.special, **self.of_template}
        return {token: chr(PRIVATE + at) * len(words) for at, (token, words) in enumerate(controls.items())}

    @cached_property
    def _renaming(self) -> Tokenizer:
        """The tokenizer with its control tokens renamed: their usual names are words to it."""
        backend: Tokenizer = self.tokenizer.backend_tokenizer
        form = json.loads(backend.to_str())
        names = {{**self.special, **self.of_template}[token]: name for token, name in self._names.items()}
        form["truncation"] = form["padding"] = form["post_processor"] = None
        for token in form["added_tokens"]:
            token["content"] = names.get(token["content"], token["content"])
        model = form["model"]
        if isinstance(model["vocab"], dict):
            model["vocab"] = {names.get(word, word): index for word, index in model["vocab"].items()}
        else:
            model["vocab"] = [[names.get(word, word), score] for word, score in model["vocab"]]
        if isinstance(model.get("unk_token"), str):
            model["unk_token"] = names.get(model["unk_token"], model["unk_token"])
        return Tokenizer.from_str(json.dumps(form))

    def _renamed(self, text: str, found: Encoded, pieces: Sequence[Piece]) -> Encoded:
        if any(PRIVATE <= ord(character) < PRIVATE + len(self._names) for character in text):
            raise NotProven("it has private characters beside control tokens", "remove them from the row")
        words = {**self.special, **self.of_template}
        letters = list(text)
        for token, place, misread in zip(found.ids, found.places, self._misread(found, pieces), strict=True):
            if token in words and not misread:  # its place may hold white space that it takes with it
                start = text.find(words[token], *place)
                letters[start : start + len(words[token])] = self._names[token]
        encoded = self._renaming.encode("".join(letters), add_special_tokens=False)
        again = Encoded(list(encoded.ids), list(encoded.offsets))
        if any(self._misread(again, pieces)):
            raise NotProven("its tokenizer makes control tokens of words", "remove what looks like a control token")
        return again

    # ---- tokenizers without places ----

    def _by_pieces(self, text: str, pieces: Sequence[Piece], cuts: Sequence[int]) -> Encoded:
        """Cut where answers begin and end and round the template's control tokens; every token has its piece's place."""
        ids: list[int] = []
        places: list[Span] = []
        for start, end in self._parts(text, pieces, cuts):
            part = text[start:end]
            control = self._ids_of_controls.get(part) if not _overlaps(start, end, pieces) else None
            made = [control] if control is not None else self._words(part, first=start == 0)
            ids += made
            places += [(start, end)] * len(made)
        return Encoded(ids, places)

    @cached_property
    def _ids_of_controls(self) -> dict[str, int]:
        return {words: token for token, words in {**self.special, **self.of_template}.items()}

    def _parts(self, text: str, pieces: Sequence[Piece], cuts: Sequence[int]) -> list[Span]:
        longest_first = sorted(self._ids_of_controls, key=len, reverse=True)
        controls = re.finditer("|".join(map(re.escape, longest_first)) or "(?!)", text)
        spans = [found.span() for found in controls if not _overlaps(*found.span(), pieces)]
        borders = sorted({0, len(text), *cuts, *(border for span in spans for border in span)})
        return [(start, end) for start, end in pairwise(borders) if end > start]

    def _words(self, part: str, *, first: bool) -> list[int]:
        def encode(words: str) -> list[int]:
            return list(self.tokenizer.encode(words, add_special_tokens=False, split_special_tokens=True))

        if first:
            return encode(part)
        # SentencePiece puts a space in front of every text; behind a line break it does not.
        line_break, made = encode("\n"), encode("\n" + part)
        return made[len(line_break) :] if made[: len(line_break)] == line_break else encode(part)


def _overlaps(start: int, end: int, pieces: Sequence[Piece]) -> bool:
    return any(piece.start < end and start < piece.end for piece in pieces)
