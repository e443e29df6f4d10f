"""python -m trainer.ship.chat MODEL... [--system TEXT] [--temperature T] ...

A conversation in the terminal with a base and its adapters, one of which answers at a time.  Answers are written as they come; Ctrl-C
ends one.  Where standard input is no terminal each line is a message and nothing but the answers is written to standard output.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import signal
import sys
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from swarm import answers
from swarm.errors import UserError
from swarm.printable import printable
from swarm.surroundings import open_output
from trainer.device import place_of, set_environment
from trainer.quiet import quieten
from trainer.ship.sources import add_models, named_in

if TYPE_CHECKING:
    from trainer.ship.answering import Answer, Sampling
    from trainer.ship.models import Models

SETTINGS: dict[str, Callable[[str], Any]] = {"temperature": float, "top_p": float, "max_new_tokens": int, "seed": int}
"""What `/set` changes, and how its value is read."""
HELP = """\
/models           the models; * answers
/use NAME         let another one answer; the conversation stays
/all TEXT         ask all of them once, from where the conversation stands
/set              show how tokens are chosen; /set temperature 0.7, top_p, max_new_tokens, seed
/system TEXT      set the system message and begin anew; without TEXT remove it
/again            answer the last message again
/rate N TEXT      rate the last answer from 1 to 5, with a reason; in a run with `feedback:`
/better TEXT      what the answer that was rated should have been
/undo             forget the last message and its answer
/new              begin anew
/save FILE        write the conversation as one JSON line, as `type: chatml` reads it
/help             this text
/quit             or Ctrl-D"""


@dataclass(frozen=True)
class Last:
    """The answer that was given last, and its rating."""

    id: str
    name: str
    turns: Sequence[dict[str, str]]
    text: str
    rating: float | None = None


@dataclass
class Chat:
    """A conversation, and what answers it."""

    models: Models
    name: str
    """Who answers; at first the first adapter."""
    sampling: Sampling
    turns: list[dict[str, str]]
    left: bool = False
    """Ctrl-C was pressed while an answer was written."""
    last: Last | None = None
    """What `/rate` is about."""

    # ---- asking ----

    def say(self, text: str) -> None:
        """Raises UserError where the conversation cannot be put to the model; then it stays as it was."""
        asked = [*self._kept(self.name), {"role": "user", "content": text}]
        found = self._answer(self.name, asked)
        self.turns = [*asked, {"role": "assistant", "content": found.text}]

    def _kept(self, name: str) -> list[dict[str, str]]:
        """A model without a chat template is asked each question by itself."""
        has_template = name in self.models.names and self.models.asker(name).prompt.chat_template is not None
        return [turn for turn in self.turns if has_template or turn["role"] == "system"]

    def _answer(self, name: str, turns: list[dict[str, str]]) -> Answer:
        from trainer.data.bad import NotARow

        try:
            prompt = self.models.conversation(name, turns)
        except NotARow as error:
            raise UserError(name, error.what, f"{error.fix}, or begin anew with /new") from error
        self.left = False
        found = self.models.answer(name, prompt, self.sampling, _write, lambda: self.left)
        print(flush=True)
        self.last = Last(f"chat-{uuid.uuid4().hex}", name, turns, found.text)
        cut = {"length": f"; cut after {found.tokens} tokens", "left": "; ended by you"}.get(found.ended, "")
        _tell(f"[{name}: {found.tokens} tokens, {found.tokens_per_second:.1f} tokens/s{cut}]")
        return found

    # ---- commands ----

    def command(self, line: str) -> bool:
        """Carries out `/name words`; False where the conversation is over.  Raises UserError."""
        name, _, words = line[1:].partition(" ")
        if name in {"quit", "exit", "q"}:
            return False
        actions: dict[str, Callable[[str], None]] = {
            "help": lambda _: _tell(HELP), "models": lambda _: self._list(), "use": self._use, "all": self._all,
            "set": self._set, "system": self._system, "again": lambda _: self._again(), "undo": lambda _: self._forget(),
            "new": lambda _: self._begin(self._system_text()), "save": self._save, "rate": self._rate, "better": self._better,
        }  # fmt: skip
        if name not in actions:
            raise UserError(f"/{name}", "is no command", "/help lists them; a message that begins with / is written //")
        actions[name](words.strip())
        return True

    def _list(self) -> None:
        for name in self.models.answering:
            _tell(f"{'*' if name == self.name else ' '} {name}")

    def _use(self, name: str) -> None:
        if name not in self.models.answering:
            raise UserError("/use", f"there is no {name!r}", f"take one of {', '.join(self.models.answering)}")
        self.name = name

    def _all(self, text: str) -> None:
        if not text:
            raise UserError("/all", "asks nothing", "write /all and the question")
        for name in self.models.answering:
            self._answer(name, [*self._kept(name), {"role": "user", "content": text}])

    def _set(self, words: str) -> None:
        name, _, value = words.partition(" ")
        if not words:
            _tell(", ".join(f"{key} {getattr(self.sampling, key)}" for key in SETTINGS))
            return
        if name not in SETTINGS:
            raise UserError("/set", f"there is no {name!r}", f"take one of {', '.join(SETTINGS)}")
        change: dict[str, Any] = {name: _number(name, value)}
        self.sampling = checked(replace(self.sampling, **change))

    def _system_text(self) -> str:
        return self.turns[0]["content"] if self.turns and self.turns[0]["role"] == "system" else ""

    def _system(self, text: str) -> None:
        self._begin(text)
        _tell("a new conversation" + (", with this system message" if text else ""))

    def _begin(self, system: str) -> None:
        self.turns = [{"role": "system", "content": system}] if system else []

    def _forget(self) -> None:
        _tell(f"forgot: {self._undo()}")

    def _undo(self) -> str:
        asked = [at for at, turn in enumerate(self.turns) if turn["role"] == "user"]
        if not asked:
            raise UserError("/undo", "nothing was asked yet", "ask something")
        text, self.turns = self.turns[asked[-1]]["content"], self.turns[: asked[-1]]
        return text

    def _again(self) -> None:
        before = self.turns
        text = self._undo()
        try:
            self.say(text)
        except UserError:
            self.turns = before
            raise

    def _rate(self, words: str) -> None:
        number, _, why = words.partition(" ")
        if self.last is None:
            raise UserError("/rate", "nothing was answered yet", "ask something")
        self._record(
            replace(self.last, rating=_number_of("/rate", number)), because=why.removeprefix("because ").strip()
        )

    def _better(self, text: str) -> None:
        if self.last is None or self.last.rating is None:
            raise UserError("/better", "the last answer is not rated", "write /rate N first")
        if not text:
            raise UserError("/better", "says nothing", "write /better and what the answer should have been")
        self._record(self.last, better=text)

    def _record(self, last: Last, because: str | None = None, better: str | None = None) -> None:
        from trainer.ship import rated

        source = next((one for one in self.models.sources.adapters if one.name == last.name), None)
        folder = answers.run_of(source.folder) if source else None
        stream = rated.stream_in(folder, source) if source and folder else None
        if folder is None or stream is None:
            raise UserError(last.name, "its answers are not rated", "take an adapter of a run with `feedback:`")
        answers.keep(folder, last.id, stream, last.turns, last.text)
        try:
            seq = rated.record(folder, {"answer": last.id, "rating": last.rating, "because": because, "better": better})
        except rated.NotRated as error:
            raise UserError("/rate", f"it was not recorded ({error})", "correct that and rate it again") from error
        self.last = last
        _tell(f"{seq} rate {last.id}")

    def _save(self, words: str) -> None:
        if not words:
            raise UserError("/save", "names no file", "write /save FILE")
        path = Path(words).expanduser()
        try:
            with path.open("a", encoding="utf-8") as file:
                file.write(json.dumps({"messages": self.turns}, ensure_ascii=False) + "\n")
        except OSError as error:
            raise UserError(words, f"cannot be written ({error.strerror})", "name another file") from error
        _tell(f"added to {path}")


def checked(sampling: Sampling) -> Sampling:
    """Raises UserError for values that cannot be sampled with."""
    if not 0 <= sampling.temperature <= 100 or not 0 < sampling.top_p <= 1 or sampling.max_new_tokens < 1:
        what = f"temperature {sampling.temperature}, top_p {sampling.top_p}, max_new_tokens {sampling.max_new_tokens}"
        raise UserError(
            "sampling", f"{what} is out of range", "temperature 0 to 100, top_p above 0 to 1, 1 token at least"
        )
    return sampling


def _number_of(command: str, value: str) -> float:
    try:
        return float(value)
    except ValueError:
        raise UserError(command, f"{value!r} is no number", f"write {command} NUMBER") from None


def _number(name: str, value: str) -> float | int:
    try:
        return SETTINGS[name](value)  # type: ignore[no-any-return]
    except ValueError:
        raise UserError(f"/set {name}", f"{value!r} is no number", f"write /set {name} NUMBER") from None


def _write(text: str) -> None:
    print(printable(text) if sys.stdout.isatty() else text, end="", flush=True)


def _tell(text: str) -> None:
    """What is no answer."""
    print(printable(text), file=sys.stderr, flush=True)


def _lines(chat: Chat) -> Iterator[str]:
    """What the user types, until the end of the input."""
    if not sys.stdin.isatty():
        yield from (line.rstrip("\n") for line in sys.stdin)
        return
    with contextlib.suppress(ImportError):
        import readline  # noqa: F401  it makes input() edit lines and remember them
    while True:
        try:
            yield input(f"{chat.name}> ")
        except EOFError:
            print()
            return
        except KeyboardInterrupt:
            _tell("\n/quit or Ctrl-D ends")


@contextlib.contextmanager
def _ctrl_c_ends_the_answer(chat: Chat) -> Iterator[None]:
    def leave(*_: object) -> None:
        chat.left = True

    before = signal.signal(signal.SIGINT, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def converse(chat: Chat) -> int:
    """The exit status: 2 where a message of a script could not be answered."""
    status = 0
    for line in _lines(chat):
        if not line.strip():
            continue
        try:
            with _ctrl_c_ends_the_answer(chat):
                if line.startswith("/") and not line.startswith("//"):
                    if not chat.command(line):
                        break
                else:
                    chat.say(line.removeprefix("/") if line.startswith("//") else line)
        except UserError as error:
            _tell(str(error))
            status = 0 if sys.stdin.isatty() else 2
    return status


def main(argv: list[str] | None = None) -> int:
    from trainer.ship.compare import add_sampling

    parser = argparse.ArgumentParser(prog="python -m trainer.ship.chat", description="Talk to a base and its adapters.")
    add_models(parser)
    add_sampling(parser, max_new_tokens=512)
    options = parser.parse_args(argv)
    open_output()
    quieten()
    set_environment(options.device)
    try:
        sources = named_in(options)
        from trainer.ship.answering import Sampling
        from trainer.ship.models import Models

        sampling = checked(Sampling(options.max_new_tokens, options.temperature, options.top_p, options.seed))
        models = Models(sources, place_of(options.device), trust_remote_code=options.trust_remote_code)
        system = [{"role": "system", "content": options.system}] if options.system else []
        chat = Chat(models, models.names[:2][-1], sampling, system)
        if sys.stdin.isatty():
            _tell(f"{', '.join(models.answering)}; {chat.name} answers; /help lists the commands")
        return converse(chat)
    except UserError as error:
        _tell(str(error))
        return 2
    except (KeyboardInterrupt, BrokenPipeError):
        return 130


if __name__ == "__main__":
    sys.exit(main())
