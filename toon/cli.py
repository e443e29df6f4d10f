"""The command `toon`: convert, check, measure and stream from files or standard input. Data goes to stdout, messages to stderr.

Exit status: 0 done, 1 the data is faulty, 2 wrong usage or an unreadable file, 130 interrupted.
"""

from __future__ import annotations

import argparse
import json
import sys
from typing import TYPE_CHECKING, Any

import toon
from toon.cli_rows import opened
from toon.errors import ToonError

if TYPE_CHECKING:
    from collections.abc import Sequence

DELIMITER_NAMES = {"comma": ",", "tab": "\t", "pipe": "|"}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit status."""
    options = parser().parse_args(arguments)
    try:
        return int(options.run(options))
    except ToonError as fault:
        print(f"{options.file}: {fault}", file=sys.stderr)
        return 1
    except OSError as fault:
        if isinstance(fault, BrokenPipeError):  # the reader closed the pipe
            sys.stderr.close()
            return 0
        print(f"{options.file}: {fault.strerror or fault}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130


def parser() -> argparse.ArgumentParser:
    """The whole command line."""
    whole = argparse.ArgumentParser(prog="toon", description="TOON (toon-spec 4.4): convert, check, measure, stream.")
    commands = whole.add_subparsers(required=True, metavar="COMMAND")
    encode = _command(
        commands,
        "encode",
        run_encode,
        "JSON to TOON",
        'toon encode run.json > run.toon\n  echo \'[{"a":1},{"a":2}]\' | toon encode --delimiter tab',
    )
    encode.add_argument("--delimiter", choices=DELIMITER_NAMES, default="comma", help="between cells (default: comma)")
    encode.add_argument("--indent", type=_spaces, default=2, metavar="N", help="spaces a level (default: 2)")
    decode = _command(
        commands,
        "decode",
        run_decode,
        "TOON to JSON",
        "toon decode run.toon > run.json\n  toon decode --salvage answer.toon   # what is whole of a cut document",
    )
    decode.add_argument("--pretty", action="store_true", help="indent the JSON (default: one line)")
    decode.add_argument(
        "--salvage",
        action="store_true",
        help="keep the complete part of a cut document; what is missing goes to stderr",
    )
    _reading(decode)
    check = _command(
        commands,
        "check",
        run_check,
        "say whether a document is valid, or where its first fault is",
        "toon check run.toon && echo fine",
    )
    _reading(check)
    _command(
        commands,
        "stats",
        run_stats,
        "compare the sizes of JSON and TOON, part by part (what starts with { or [ and no TOON header is read as JSON)",
        "toon stats run.json\n  toon stats run.toon",
    ).add_argument(
        "--levels", type=int, default=3, metavar="N", help="how deep to look for parts where TOON loses (default: 3)"
    )
    from toon.cli_rows import add_rows_command

    add_rows_command(commands)
    return whole


def _command(commands: Any, name: str, run: Any, what: str, example: str) -> argparse.ArgumentParser:
    command: argparse.ArgumentParser = commands.add_parser(
        name,
        help=what,
        description=f"{what[0].upper()}{what[1:]}.",
        epilog=f"example:\n  {example}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    command.add_argument("file", nargs="?", default="-", help="a file, or - for standard input (default: -)")
    command.set_defaults(run=run)
    return command


def _spaces(text: str) -> int:
    """The width of a level."""
    if not text.isascii() or not text.isdecimal() or not text.strip("0"):
        raise argparse.ArgumentTypeError(f"expected a positive number of spaces, found {text}")
    return int(text)


def _reading(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--lenient", action="store_true", help="forgive what section 14.4 forgives (counts, repeated keys, indentation)"
    )
    command.add_argument("--indent", type=_spaces, default=2, metavar="N", help="spaces a level (default: 2)")


def read(name: str) -> bytes:
    """All bytes of a file, up to the limit of a document and one more."""
    with opened(name) as file:
        return file.read(toon.Limits().max_bytes + 1)


def put(text: str) -> None:
    """Write text to stdout as UTF-8, whatever the locale says."""
    sys.stdout.buffer.write(text.encode() + b"\n")
    sys.stdout.buffer.flush()


def run_encode(options: argparse.Namespace) -> int:
    """`toon encode`."""
    from toon.cli_json import json_value

    put(
        toon.encode(json_value(read(options.file)), indent=options.indent, delimiter=DELIMITER_NAMES[options.delimiter])
    )
    return 0


def run_decode(options: argparse.Namespace) -> int:
    """`toon decode`."""
    data = read(options.file)
    missing: list[toon.Missing] = []
    if options.salvage:
        value, missing = toon.salvage(data, indent=options.indent)
    else:
        value = toon.decode(data, indent=options.indent, strict=not options.lenient)
    put(
        json.dumps(value, ensure_ascii=False, indent=2)
        if options.pretty
        else json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    )
    for path, declared, got in missing:
        of = f" of {declared}" if declared is not None else ""
        print(f"{options.file}: cut at {path or 'the root'}: got {got}{of}", file=sys.stderr)
    return 1 if missing else 0


def run_check(options: argparse.Namespace) -> int:
    """`toon check`; a fault ends it through `main`, with its position and status 1."""
    toon.decode(read(options.file), indent=options.indent, strict=not options.lenient)
    print(f"{options.file}: valid", file=sys.stderr)
    return 0


def run_stats(options: argparse.Namespace) -> int:
    """`toon stats`; JSON where the file is or was meant as JSON, else TOON."""
    from toon.cli_json import is_meant_as_json, json_value

    data = read(options.file)
    try:
        value = json_value(data)
    except ToonError:
        if is_meant_as_json(data):
            raise
        value = toon.decode(data)
    found = toon.stats(value, levels=options.levels)
    smallest = found.smallest.form
    compact_tokens = found.sizes[0].tokens
    lines = ["form              bytes    tokens  v compact JSON"]
    for form, size_bytes, tokens in found.sizes:
        share = f"{tokens / max(compact_tokens, 1):6.2f}" + (" <- fewest tokens" if form == smallest else "")
        lines.append(f"{form:12} {size_bytes:10} {tokens:9}  {share}")
    for part in found.losses[:10]:
        share = f"{part.toon_tokens / max(part.json_tokens, 1):.2f}"
        lines.append(
            f"TOON loses at {part.path or 'the root'} ({part.shape}): {part.json_tokens} -> {part.toon_tokens} tokens, {share}"
        )
    put("\n".join(lines))
    print("tokens are estimates for o200k_base; see toon.estimated_tokens", file=sys.stderr)
    return 0
