"""Made-up records and tables: the values that the pre-training text and the demo's rows are about; it renders nothing."""

# ruff: noqa: SIM905 - lists of words read better as text

from dataclasses import dataclass
from typing import Literal, TypeAlias

from trainer.embedded.draws import Draws

Scalar: TypeAlias = bool | int | float | str
Tree: TypeAlias = Scalar | dict[str, "Tree"] | list["Tree"]
Record: TypeAlias = dict[str, Scalar]
Kind: TypeAlias = Literal["name", "word", "integer", "decimal", "date", "flag", "code"]

ONSETS = tuple("b c d f g h j k l m n p r s t v w z br ch dr gr kl pl sh st th tr".split())
VOWELS = tuple("a e i o u a e i o u ai ea ou".split())
CODAS = ("", "", "", "n", "r", "s", "l", "m", "t", "k")
ACCENTED = {"a": "å", "e": "é", "i": "í", "o": "ö", "u": "ü", "n": "ñ", "s": "š", "c": "ç"}
# First letters of scripts whose next 20 code points are all letters: Greek, Cyrillic, Hiragana, CJK, Hangul.
SCRIPT_STARTS = (0x3B1, 0x430, 0x3042, 0x4E00, 0xAC00)

WORDS = tuple(
    "red green blue black white amber north south east west open closed ready idle busy small large tall short cold warm "
    "fast slow new old oak pine iron steel glass paper cotton wool apple pear plum bread milk rice salt tea coffee river "
    "lake hill road bridge garden market school office table chair lamp clock bag book box cup door key map pen ship "
    "train truck wheel high low medium draft final active paused failed passed training waiting done".split()
)

FIELDS: dict[str, Kind] = {
    "name": "name", "owner": "name", "city": "name", "author": "name", "team": "name", "title": "name", "user": "name",
    "color": "word", "status": "word", "kind": "word", "label": "word", "state": "word", "material": "word", "level": "word",
    "id": "integer", "qty": "integer", "count": "integer", "age": "integer", "year": "integer", "step": "integer",
    "rank": "integer", "seats": "integer", "epoch": "integer", "batch": "integer", "size": "integer", "stock": "integer",
    "price": "decimal", "weight": "decimal", "loss": "decimal", "score": "decimal", "rate": "decimal", "total": "decimal",
    "height": "decimal", "speed": "decimal", "temp": "decimal", "seconds": "decimal",
    "date": "date", "due": "date", "since": "date", "born": "date",
    "active": "flag", "paid": "flag", "valid": "flag", "done": "flag", "local": "flag",
    "code": "code", "sku": "code", "ref": "code", "slot": "code",
}  # fmt: skip
KINDS: tuple[Kind, ...] = ("name", "word", "integer", "decimal", "date", "flag", "code")
TABLES = tuple(
    "items users orders runs sensors books cities tasks parts teams events rows trips files rooms plants boats games "
    "songs steps metrics jobs nodes shops".split()
)
GROUPS = tuple("size place owner box limits contact range details model origin".split())
LISTS = tuple("tags colors names steps values scores labels sizes".split())


@dataclass(frozen=True, slots=True)
class Table:
    """Records that share their keys, with or without a name."""

    name: str | None
    records: tuple[Record, ...]

    @property
    def keys(self) -> list[str]:
        return list(self.records[0])

    @property
    def tree(self) -> Tree:
        rows: list[Tree] = [{**record} for record in self.records]
        return rows if self.name is None else {self.name: rows}


def syllables(draws: Draws, fewest: int, most: int) -> str:
    count = draws.integer(fewest, most)
    return "".join(draws.one(ONSETS) + draws.one(VOWELS) + draws.one(CODAS) for _ in range(count))


def foreign_word(draws: Draws) -> str:
    start = draws.one(SCRIPT_STARTS)
    return "".join(chr(start + draws.integer(0, 19)) for _ in range(draws.integer(2, 4)))


def name(draws: Draws) -> str:
    if draws.chance(0.01):
        return foreign_word(draws)
    word = syllables(draws, 1, 2)
    if draws.chance(0.04):
        word = "".join(ACCENTED.get(letter, letter) for letter in word)
    if draws.chance(0.8):
        word = word.capitalize()
    return f"{word} {syllables(draws, 1, 1).capitalize()}" if draws.chance(0.1) else word


def date(draws: Draws) -> str:
    return f"{draws.integer(1950, 2039)}-{draws.integer(1, 12):02d}-{draws.integer(1, 28):02d}"


def decimal(draws: Draws) -> float:
    """A number that is never whole, so that every form writes it alike."""
    hundredths = draws.integer(1, 10 ** draws.integer(2, 4) - 1)
    if hundredths % 100 == 0:
        hundredths += 1
    return hundredths / 100 if draws.chance(0.95) else -hundredths / 100


def code(draws: Draws) -> str:
    letters = "".join(draws.one("ABCDEFGHKMNPRSTUVWXYZ") for _ in range(draws.integer(1, 2)))
    return f"{letters}-{draws.integer(1, 99)}"


def integer(draws: Draws) -> int:
    size = draws.integer(0, 10 ** draws.integer(1, 4) - 1)
    return size if draws.chance(0.95) else -size


def scalar(draws: Draws, kind: Kind) -> Scalar:
    match kind:
        case "name":
            return name(draws)
        case "word":
            return draws.one(WORDS)
        case "integer":
            return integer(draws)
        case "decimal":
            return decimal(draws)
        case "date":
            return date(draws)
        case "flag":
            return draws.chance(0.5)
        case "code":
            return code(draws)


def keys_with_kinds(draws: Draws, count: int) -> dict[str, Kind]:
    """Keys with the kind of their values; one key in ten is made up, so that keys are read and not known by heart."""
    chosen: dict[str, Kind] = {}
    for key in draws.some(list(FIELDS), count):
        if draws.chance(0.1):
            chosen[syllables(draws, 2, 3)] = draws.one(KINDS)
        else:
            chosen[key] = FIELDS[key]
    return chosen


def record(draws: Draws, fewest_keys: int = 2, most_keys: int = 4) -> Record:
    kinds = keys_with_kinds(draws, draws.integer(fewest_keys, most_keys))
    return {key: scalar(draws, kind) for key, kind in kinds.items()}


def table(draws: Draws, most_rows: int, most_keys: int = 3) -> Table:
    kinds = keys_with_kinds(draws, draws.integer(2, most_keys))
    rows = range(draws.integer(2, most_rows))
    records = tuple({key: scalar(draws, kind) for key, kind in kinds.items()} for _ in rows)
    return Table(draws.one(TABLES) if draws.chance(0.5) else None, records)


def nested(draws: Draws) -> dict[str, Tree]:
    """A record that holds a smaller record, a list of scalars, or both."""
    tree: dict[str, Tree] = {**record(draws, 1, 3)}
    shape = draws.integer(0, 2)
    if shape != 1:
        tree[draws.one(GROUPS)] = {**record(draws, 2, 3)}
    if shape != 0:
        kind = draws.one(KINDS)
        tree[draws.one(LISTS)] = [scalar(draws, kind) for _ in range(draws.integer(2, 5))]
    return tree
