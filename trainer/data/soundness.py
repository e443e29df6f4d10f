"""A row's tokens looked at once more before they are trained on, whatever made them: what is trained on silently spoils an adapter elsewhere."""

from __future__ import annotations

from trainer.data.bad import NotProven
from trainer.data.rows import Labelled, Row, Text
from trainer.data.tokens import IGNORED, RowReader, Tokens

ANOTHER_TEMPLATE = "look at the row with `swarm show`, or take another base"


def refuse_unsound(row: Row, tokens: Tokens, tokeniser: RowReader, embedding_rows: int | None) -> None:
    """Raises NotProven where the base has no embedding for a token, everything is supervised, or no stop token is.

    A row that `sequence_len` cuts may lack its stop token; how many may be cut is a limit of its own.
    """
    if embedding_rows is not None and (beyond := max(tokens.ids, default=0)) >= embedding_rows:
        what = f"its tokenizer makes the token {beyond}, and its embedding has {embedding_rows} rows"
        raise NotProven(what, "save the base with an embedding for all tokens, or take another one")
    if isinstance(row, Text | Labelled) or tokeniser.train_on_inputs or not tokens.supervised:
        return
    if IGNORED not in tokens.labels:
        raise NotProven("every token of it is supervised, although `train_on_inputs` is false", ANOTHER_TEMPLATE)
    if not tokens.cut and not tokeniser.stops.intersection(tokens.labels):
        raise NotProven("no stop token is among its supervised ones", ANOTHER_TEMPLATE)
