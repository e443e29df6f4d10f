"""An agent's inbox: mentions, questions, answers, hand-overs and reactions to its own entries, since it last read it.

The cursor is a seq in `agents/<name>/inbox`, read and moved under an flock on that file, so that of two processes under one name
one gets each message.  Finding what is addressed to whom is pure; nothing here writes to the log.
"""

from __future__ import annotations

import fcntl
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from swarm import diary
from swarm import events as ev
from swarm.errors import UserError
from swarm.event import Event
from swarm.log import Entry
from swarm.log.lock import open_lock
from swarm.plainfiles import NotPlain, make_folder, read_file
from swarm.policy.promotion import waiting
from swarm.printable import one_line
from swarm.rundir import RunFolder
from swarm.settings import RunSettings
from swarm.state import State

MENTION = re.compile(r"(?<![a-z0-9._@/-])@([a-z0-9][a-z0-9._-]{0,63})")


@dataclass(frozen=True, slots=True)
class Message:
    """An entry and the reason why it is in the inbox."""

    why: str
    """mention, question, answer, handed, lost, refused; approve, object, amend (of one's own entry); corrected (an earlier message);
    unanswered (a question, old or new)."""
    entry: Entry
    amendment: Entry | None = None
    """The newest entry that corrects it."""

    @property
    def text(self) -> str:
        """Its text as a line."""
        event = self.entry.event
        return one_line(event.body) if self.why == "unanswered" else diary.shown(event)  # that it asks is said by then

    @property
    def amended(self) -> str:
        """Its correction, with seq and author, since anybody may amend."""
        by = self.amendment
        return f"{by.seq} by {by.author}: {one_line(by.event.body)}" if by else ""

    @property
    def as_corrected(self) -> str:
        """Correction and original in one line; the correction comes first, so that a cut never leaves only the wrong text."""
        return f"amended: {self.amended} ← {self.text}" if self.amendment else self.text


@dataclass(frozen=True, slots=True)
class Inbox:
    """The contents of an inbox."""

    agent: str
    at: int
    """The seq up to which it was read; the next `since`."""
    messages: list[Message]
    questions: list[Message]
    """Open questions to this agent, including those that it has read."""
    waiting: list[tuple[str, float]]
    """Tasks that wait for this agent, and until when (log time)."""
    held: list[tuple[str, int, float]]
    """Tasks that it holds: ref, token, end of the lease (log time)."""
    promotion: str = ""
    """The stream whose promotion waits for this agent's approval."""


def read_inbox(
    folder: RunFolder,
    name: str,
    entries: Sequence[Entry],
    state: State,
    *,
    since: int | None = None,
    peek: bool = False,
) -> Inbox:
    """What is new for `name`; the cursor moves to the newest entry unless `since` or `peek` is given."""
    from swarm import config  # here: `swarm log --as` imports this module and needs no config

    moves = since is None and not peek
    with cursor(folder, name, moves=moves) as place:
        after = place.seq if since is None else since
        settings = config.of_run(folder, state.added)
        found = Inbox(
            agent=name,
            at=entries[-1].seq if entries else 0,
            messages=list(messages(entries, name, after)),
            questions=questions(entries, state, name),
            waiting=waiting_for(state, settings, name),
            held=[(t.ref, t.lease.token, t.lease.until) for t in state.held() if t.lease and t.lease.by == name],
            promotion=promotion_for(state, settings, name),
        )
        if moves:
            place.seq = max(place.seq, found.at)
    return found


def messages(entries: Sequence[Entry], name: str, since: int = 0) -> Iterator[Message]:
    """The entries addressed to `name` after `since`, oldest first, without its own.

    A corrected entry comes with its correction; the correction comes separately only if the entry is not among them.
    """
    reader, newest, fresh = Reader(name), amendments(entries), set[int]()
    for entry in entries:
        why = reader.why(entry)
        if not why or entry.seq <= since:
            continue
        fresh.add(entry.seq)
        if why != "corrected" or corrected_by(entry) not in fresh:
            yield Message(why, entry, newest.get(entry.seq))


def questions(entries: Sequence[Entry], state: State, name: str) -> list[Message]:
    """The open questions to `name`: which they are is in `state`, their text in the entries."""
    newest = amendments(entries)
    open_ = {seq for seq, question in state.questions.items() if name in question.to}
    return [Message("unanswered", entry, newest.get(entry.seq)) for entry in entries if entry.seq in open_]


def amendments(entries: Iterable[Entry]) -> dict[int, Entry]:
    """The newest amendment of every entry that has one; amending an amendment also amends what that one amends."""
    newest: dict[int, Entry] = {}
    of: dict[int, int] = {}
    for entry in entries:
        seq = corrected_by(entry)
        if 0 < seq < entry.seq:
            of[entry.seq] = seq
        while seq:
            newest[seq] = entry
            seq = of.get(seq, 0)
    return newest


def corrected_by(entry: Entry) -> int:
    """The seq of what the entry amends; 0 for all others."""
    return entry.event.of if isinstance(entry.event, ev.Amend) else 0


class Reader:
    """Finds why entries concern `name`; it must be given all of them, in the order of the log."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._authors: dict[int, str] = {}
        self._concerning: set[int] = set()
        """The seqs of entries that concern it."""

    def why(self, entry: Entry) -> str:
        """Empty if the entry does not concern it, or is its own."""
        self._authors[entry.seq] = entry.author
        if entry.author == self.name:
            return ""
        why = addressed(entry, self.name, self._authors) or (
            "corrected" if corrected_by(entry) in self._concerning else ""
        )
        if why:
            self._concerning.add(entry.seq)
        return why


def addressed(entry: Entry, name: str, authors: Mapping[int, str]) -> str:
    """Why the entry concerns `name`; "" if it does not."""
    event = entry.event
    match event:
        case ev.Post(asks=asked) if asked and name in asked.split(","):
            return "question"
        case ev.Post(of=of) if of and authors.get(of) == name:
            return "answer"
        case ev.Amend(of=of) | ev.Approve(of=of) | ev.Object(of=of) if of and authors.get(of) == name:
            return event.kind
        case ev.Hand(to=to) if to == name:
            return "handed"
        case ev.Expire(tok=tok) | ev.Hand(tok=tok) if authors.get(tok) == name:
            return "lost"
        case ev.Refuse(by=by) if by == name:
            return "refused"
        case _:
            return "mention" if name in mentioned(words_of(event)) else ""


def words_of(event: Event) -> str:
    """All free text of the event: a mention counts in each part of it."""
    return "\n".join(filter(None, (event.body, getattr(event, "title", None), getattr(event, "why", None))))


def mentioned(text: str) -> set[str]:
    """The names after an @, without a full stop or dash that ends the sentence."""
    found = MENTION.findall(text)
    return {*found, *(name.rstrip("._-") for name in found)}


def waiting_for(state: State, settings: RunSettings, name: str) -> list[tuple[str, float]]:
    """Tasks that wait for this agent by the config's `roles`, and until when."""
    return [
        (task.ref, state.streams[task.ref.partition("/")[0]].turn_since + settings.roles_wait_seconds)
        for task in state.ready()
        if task.role and f"agent:{name}" in settings.roles.get(task.role, ())
    ]


def promotion_for(state: State, settings: RunSettings, name: str) -> str:
    """The stream whose promotion waits for this agent: for its approval, or for it to take back its objection."""
    stream, _, waits = waiting(state, settings.promotion).partition(": ")
    if not waits:
        return ""
    if objectors := [by for by, _ in state.objections(stream)]:
        return stream if name in objectors else ""
    asked = not settings.promotion.approvers or name in settings.promotion.approvers
    return stream if asked and name not in state.approvers(stream) else ""


class Place:
    """The position up to which an agent has read."""

    def __init__(self, seq: int) -> None:
        self.seq = seq


@contextmanager
def cursor(folder: RunFolder, name: str, *, moves: bool, file: str = "inbox") -> Iterator[Place]:
    """The agent's position in the log, for what `file` names; if `moves`, it is saved when the block ends without an exception.

    Raises UserError where it cannot be kept.
    """
    path = folder.path / "agents" / name / file
    if not moves:
        yield Place(_seq_in(_kept(path), path))
        return
    try:
        make_folder(path.parent)
        descriptor = open_lock(path)
    except NotPlain:
        raise
    except OSError as error:
        fix = "look with --peek or --since, which keep nothing"
        raise UserError(str(path), f"how far you have read cannot be kept ({error.strerror})", fix) from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        place = Place(_seq_in(os.pread(descriptor, 32, 0), path))
        yield place
        # one write of a fixed width: after a crash the file holds the old number or the new one
        os.pwrite(descriptor, b"%018d\n" % place.seq, 0)
    finally:
        os.close(descriptor)


def _kept(path: Path) -> bytes:
    try:
        return read_file(path)
    except FileNotFoundError:
        return b""


def _seq_in(kept: bytes, path: Path) -> int:
    text = kept.decode(errors="replace").strip()
    if not re.fullmatch(r"\d{0,18}", text):
        raise UserError(str(path), f"{text[:32]!r} is no seq", "remove the file: everything counts as unread then")
    return int(text or 0)
