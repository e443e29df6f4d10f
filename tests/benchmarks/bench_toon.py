"""Speed of toon beside stdlib json and the other TOON packages, as ratios to json (compact separators) measured in one run.

    python tests/benchmarks/bench_toon.py            # three payloads, both directions
    python tests/benchmarks/bench_toon.py --rounds 200
    python tests/benchmarks/bench_toon.py --hostile  # hostile documents: doubling, and time a byte

Every round times each contender once, in turn, by processor time; the figure is the least of all rounds. Contenders not installed are left out.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from time import process_time
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

import toon
from tests.toon.hostile import DOCUMENTS, ordinary, spent_seconds
from tests.toon.payloads import session, table

Contender = tuple[Callable[[Any], Any], Callable[[Any], Any]]
GATES = {"table 1000 x 12": (1.6, 2.1), "event": (3.0, 5.0), "session": (5.0, 8.0)}


def contenders() -> dict[str, Contender]:
    """Name to (encode, decode)."""
    found: dict[str, Contender] = {
        "json": (lambda value: json.dumps(value, separators=(",", ":")), json.loads),
        "toon": (toon.encode, toon.decode),
    }
    for name, module, to, back in (
        ("toon-format", "toon_format", "encode", "decode"),
        ("toons", "toons", "dumps", "loads"),
        ("ctoon", "ctoon", "dumps", "loads"),
    ):
        try:
            package = import_module(module)
        except ImportError:
            continue
        found[name] = (getattr(package, to), getattr(package, back))
    return found


def least_seconds(calls: dict[str, Callable[[], Any]], rounds: int) -> dict[str, float]:
    """The least time of one call, contenders interleaved."""
    repeats = {name: _repeats(call) for name, call in calls.items()}
    least = dict.fromkeys(calls, float("inf"))
    for _ in range(rounds):
        for name, call in calls.items():
            start = process_time()
            for _ in range(repeats[name]):
                call()
            least[name] = min(least[name], (process_time() - start) / repeats[name])
    return least


def _repeats(call: Callable[[], Any], seconds: float = 0.003) -> int:
    call()
    start = process_time()
    call()
    return max(1, round(seconds / max(process_time() - start, 1e-7)))


def measure(title: str, value: Any, rounds: int) -> None:
    """Print one payload's ratios."""
    found = contenders()
    texts = {name: to(value) for name, (to, _) in found.items()}
    seconds = [
        least_seconds({name: lambda to=to: to(value) for name, (to, _) in found.items()}, rounds),
        least_seconds(
            {name: lambda back=back, text=texts[name]: back(text) for name, (_, back) in found.items()}, rounds
        ),
    ]
    print(f"{title} ({len(texts['json']):,} B of JSON, {len(texts['toon']):,} B of TOON)")
    for name in found:
        ratios = [direction[name] / direction["json"] for direction in seconds]
        gates = GATES[title] if name == "toon" else ()
        told = "".join(
            f"  gate {gate} {'ok' if ratio <= gate else 'MISSED'}" for ratio, gate in zip(ratios, gates, strict=False)
        )
        micros = [direction[name] * 1e6 for direction in seconds]
        print(
            f"  {name:12} encode {ratios[0]:6.2f} ({micros[0]:9.1f} us)  decode {ratios[1]:6.2f} ({micros[1]:9.1f} us){told}"
        )


def measure_hostile(size: int = 500_000) -> None:
    """Print what doubling a hostile document costs, and its time a byte beside that of an ordinary document."""
    usual = ordinary(2 * size)
    usual_seconds_per_byte = spent_seconds(usual)[0] / len(usual)
    for name, make in DOCUMENTS.items():
        small, large = make(size), make(2 * size)
        least = [spent_seconds(text)[0] for text in (small, large)]
        per_byte = least[1] / len(large) / usual_seconds_per_byte
        doubling = "x" if least[1] < 0.002 else f"{least[1] / least[0]:.2f}"
        print(
            f"{name:40} {spent_seconds(small, 1)[1]:8} {least[1] * 1e3:8.1f} ms  doubling {doubling:5} a byte {per_byte:5.2f}"
        )


def main() -> None:
    """Run."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--rounds", type=int, default=60)
    options.add_argument("--hostile", action="store_true")
    given = options.parse_args()
    if given.hostile:
        measure_hostile()
        return
    rounds = given.rounds
    rows = table()
    measure("table 1000 x 12", rows, rounds)
    measure("event", rows[7], rounds)
    measure("session", session(), rounds)


if __name__ == "__main__":
    main()
