"""Every setting of a run, with its type, unit and default: what users write in YAML and what workers are given.

The words are axolotl's first, then Hugging Face's.  Reading files, overrides, origins and error lines is `config`'s work.
"""

from swarm.settings.alerts import Alert
from swarm.settings.data import DATA_SUFFIXES, PLAIN, Dataset, TokenIds, ending_of, wrong_ending
from swarm.settings.feedback import Feedback
from swarm.settings.part import WITHOUT_WARM_UP, Part
from swarm.settings.pruner import Pruner
from swarm.settings.research import Phase, Research
from swarm.settings.run import Placement, Promotion, RunSettings
from swarm.settings.search import MOST_TRIALS, TRIALS, Budget, Halving, Range, Search
from swarm.settings.stream import MOST_RATES, MOST_SEEDS, Judge, StreamSettings, Tracker

__all__ = [
    "DATA_SUFFIXES",
    "MOST_RATES",
    "MOST_SEEDS",
    "MOST_TRIALS",
    "PLAIN",
    "TRIALS",
    "WITHOUT_WARM_UP",
    "Alert",
    "Budget",
    "Dataset",
    "Feedback",
    "Halving",
    "Judge",
    "Part",
    "Phase",
    "Placement",
    "Promotion",
    "Pruner",
    "Range",
    "Research",
    "RunSettings",
    "Search",
    "StreamSettings",
    "TokenIds",
    "Tracker",
    "ending_of",
    "wrong_ending",
]  # fmt: skip
