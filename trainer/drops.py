"""How an error that ended a task is reported: as a `drop` whose words are for the log."""

from __future__ import annotations

import sys
import traceback

from swarm.errors import UserError
from swarm.events import Drop
from swarm.messages import Piece
from swarm.plainfiles import NO_SPACE
from swarm.redaction import redacted
from trainer.errors import LeaseRevoked, LeaseStopped

TRACEBACK_LINES = 40


def drop_for(piece: Piece, error: Exception) -> Drop | None:
    """How an error is reported; None for a lease that is another's by now."""
    match error:
        case LeaseRevoked():
            return None
        case LeaseStopped():
            return Drop(ref=piece.ref, tok=piece.token, why=str(error), failed=False)
        case UserError():
            return Drop(ref=piece.ref, tok=piece.token, why=str(error), failed=True, retry=False)
        case OSError(errno=number) if number in NO_SPACE:
            what = f"{error.filename or 'the run folder'}: no space; free some, then `swarm resume`"
            return Drop(ref=piece.ref, tok=piece.token, why=redacted(what), failed=True, retry=False)
        case _:
            print(redacted("".join(traceback.format_exception(error))), file=sys.stderr)
            return Drop(ref=piece.ref, tok=piece.token, why=_reason(error), failed=True, body=_tail(error))


def _reason(error: Exception) -> str:
    """One line for the log; for lack of memory it names the settings that need less."""
    text = redacted(" ".join(str(error).split()))[:300]
    if isinstance(error, MemoryError) or "out of memory" in text.lower() or "can't allocate memory" in text.lower():
        return "out of memory; lower micro_batch_size or sequence_len, or set gradient_checkpointing: true"
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _tail(error: Exception) -> str:
    return "\n".join(redacted("".join(traceback.format_exception(error))).rstrip().splitlines()[-TRACEBACK_LINES:])
