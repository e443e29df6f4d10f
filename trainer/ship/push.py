"""python -m trainer.ship.push ADAPTER REPOSITORY [--dry-run] [--yes] [--private] [--revision R] [--json | --toon]

Uploads an adapter to a hub: PEFT's two files, the tokenizer with the training's template, and a model card; nothing else of its folder.
huggingface_hub uploads, to HF_ENDPOINT and with the token that `hf auth login` keeps or HF_TOKEN holds.  What would go is shown first.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from swarm import units
from swarm.errors import UserError
from swarm.model_card import CARD, card, kept_card, public_name
from swarm.printable import printable
from swarm.redaction import redacted
from swarm.surroundings import open_output
from swarm.weights import ADAPTER, sha256_of
from trainer import bases
from trainer.quiet import quieten
from trainer.ship.portable import copy_adapter
from trainer.ship.sources import read_lineage, sources_of
from trainer.show import add_forms, print_form


@dataclass(frozen=True)
class Parcel:
    """What would be uploaded."""

    repository: str
    endpoint: str
    private: bool
    base: str
    card: str
    """`kept` or `made`."""
    files: list[dict[str, object]]
    notes: list[str]


def gathered(folder: Path, repository: str, staged: Path, *, private: bool, base: str | None) -> Parcel:
    """Copies what goes into `staged`.  Raises UserError."""
    from huggingface_hub import constants

    sources = sources_of([str(folder)], base)
    if not sources.adapters:
        raise UserError(str(folder), "is no adapter", "name its folder; a whole model goes with `hf upload`")
    lineage, notes = read_lineage(folder), []
    name = public_name(sources.base)
    if name != sources.base or sources.base == bases.EMBEDDED:
        notes.append(f"the base {name} is not on a hub by that name: who loads the adapter needs it from elsewhere")
    copy_adapter(folder, staged, bases.folder_of(sources.base), name)
    kept = kept_card(folder)
    text = kept or card(repository.rpartition("/")[2], name, lineage, sha256_of(folder / ADAPTER))
    (staged / CARD).write_text(text, encoding="utf-8")
    if kept is None:
        notes.append("the card names no licence: state one in README.md beside the adapter if you want to")
    files: list[dict[str, object]] = [
        {"file": path.name, "bytes": path.stat().st_size} for path in sorted(staged.iterdir())
    ]
    return Parcel(repository, constants.ENDPOINT, private, name, "kept" if kept else "made", files, notes)


@contextmanager
def _hub_errors(repository: str) -> Iterator[None]:
    """What the hub refuses, in a user's words and without the token."""
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalTokenNotFoundError, OfflineModeIsEnabled

    login = "log in with `hf auth login`, or set HF_TOKEN to a token that may write"
    try:
        yield
    except HFValidationError as error:
        raise UserError(repository, "is no name of a repository", "write OWNER/NAME") from error
    except LocalTokenNotFoundError as error:
        raise UserError(repository, "nobody is logged in to the hub", login) from error
    except OfflineModeIsEnabled as error:
        raise UserError(repository, "HF_HUB_OFFLINE is set", "unset it to upload") from error
    except HfHubHTTPError as error:
        status = error.response.status_code
        what = redacted(" ".join(str(error.server_message or error).split())[:200])
        fix = login if status in {401, 403} else "look at what the hub says, try again"
        raise UserError(repository, f"the hub refuses it ({status}: {what})", fix) from error
    except OSError as error:
        what = redacted(" ".join(str(error).split())[:200])
        raise UserError(
            repository, f"the hub cannot be reached ({what})", "check the network and HF_ENDPOINT"
        ) from error


def upload(parcel: Parcel, staged: Path, revision: str | None) -> str:
    """The address of the commit.  Raises UserError."""
    from huggingface_hub import HfApi
    from huggingface_hub.utils.tqdm import disable_progress_bars

    disable_progress_bars()
    with _hub_errors(parcel.repository):
        api = HfApi()
        api.create_repo(parcel.repository, private=parcel.private or None, exist_ok=True)
        if revision:
            api.create_branch(parcel.repository, branch=revision, exist_ok=True)
        done = api.upload_folder(
            repo_id=parcel.repository, folder_path=staged, revision=revision, commit_message="Upload an adapter"
        )
    return str(done.commit_url)


def _shown(parcel: Parcel, text: str) -> str:
    width = max(len(str(file["file"])) for file in parcel.files)
    rows = [f"  {file['file']!s:<{width}}  {units.size(int(str(file['bytes']))):>9}" for file in parcel.files]
    seen = "private" if parcel.private else "public, unless it is there already and private"
    head = f"to {parcel.repository} at {parcel.endpoint} ({seen}); model card {parcel.card}:"
    return "\n".join([head, *rows, *(f"note: {note}" for note in parcel.notes), "", text])


def _agreed(*, yes: bool) -> bool:
    if yes:
        return True
    if not sys.stdin.isatty():
        raise UserError("push", "asks before it uploads, and there is no terminal", "look at --dry-run, then add --yes")
    print("upload this? [y/N] ", end="", file=sys.stderr, flush=True)
    return sys.stdin.readline().strip().lower() in {"y", "yes"}


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m trainer.ship.push", description="Upload an adapter to a hub.")
    parser.add_argument("adapter", type=Path, metavar="ADAPTER")
    parser.add_argument("repository", metavar="OWNER/NAME")
    parser.add_argument("--base", help="default: the one that the adapter names")
    parser.add_argument("--dry-run", action="store_true", help="only show what would go")
    parser.add_argument("--yes", "-y", action="store_true", help="do not ask")
    parser.add_argument("--private", action="store_true", help="a new repository is private")
    parser.add_argument("--revision", help="a branch; default: main")
    add_forms(parser)
    options = parser.parse_args(argv)
    open_output()
    quieten()
    try:
        with TemporaryDirectory(prefix="push-") as place:
            staged = Path(place)
            parcel = gathered(options.adapter, options.repository, staged, private=options.private, base=options.base)
            text = (staged / CARD).read_text(encoding="utf-8")
            if options.form is None or not options.dry_run:
                print(printable(_shown(parcel, text)), file=sys.stdout if options.dry_run else sys.stderr)
            if options.dry_run:
                print_form({**asdict(parcel), "text": text}, options.form)
                return 0
            if not _agreed(yes=options.yes):
                print("nothing was uploaded", file=sys.stderr)
                return 0
            address = upload(parcel, staged, options.revision)
    except UserError as error:
        print(printable(str(error)), file=sys.stderr)
        return 2
    if not print_form({**asdict(parcel), "address": address}, options.form):
        print(address)
    return 0


if __name__ == "__main__":
    sys.exit(main())
