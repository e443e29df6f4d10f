"""What is asked of a model, as everybody sees it who loads, prepares, trains or judges: one object a stream, given by its method."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from trainer.data.tokens import IGNORED, RowReader, Tokens

if TYPE_CHECKING:
    from torch import Tensor, nn
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from swarm.settings import StreamSettings
    from trainer.judge.answers import Answer, Question, Sampling
    from trainer.judge.heldout import RowLoss


class Objective(ABC):
    # ---- the model ----

    @abstractmethod
    def model_class(self, config: Any) -> Any:
        """The class of transformers that makes it.  Raises UserError where this base cannot be asked so."""

    def arguments(self, config: Any) -> dict[str, Any]:
        """What `from_pretrained` is given besides."""
        return {}

    def kept_whole(self, config: Any) -> list[str]:
        """Modules that are not quantised, beside what transformers leaves out itself."""
        return []

    def is_made_here(self, model: PreTrainedModel, tensor: str) -> bool:
        """Whether a tensor that the base's files do not have is no lack of theirs, since `after_loading` makes it."""
        return False

    def after_loading(self, model: PreTrainedModel, missing: Collection[str]) -> None:
        """`missing`: tensors that the base's files do not have."""
        return

    # ---- its rows ----

    @abstractmethod
    def reader(self, settings: StreamSettings, tokenizer: PreTrainedTokenizerBase, folder: Path) -> RowReader: ...

    def shown(self, row: Tokens, tokenizer: PreTrainedTokenizerBase) -> list[tuple[bool, str]]:
        """What is trained on as text, in pieces, each with whether the loss counts it: the token ids decoded."""
        runs: list[tuple[bool, list[int]]] = []
        for token, label in zip(row.ids, row.labels, strict=True):
            counted = label != IGNORED
            if not runs or runs[-1][0] != counted:
                runs.append((counted, []))
            runs[-1][1].append(token)
        return [(counted, str(tokenizer.decode(ids))) for counted, ids in runs]

    # ---- what it learns ----

    figure: ClassVar[str] = ""
    """What its loss is, where a figure has that name."""

    def to_learn(self, model: nn.Module, rows: Sequence[Tokens], keys: Sequence[int]) -> Sequence[Tokens]:
        """What `counted` and `loss` are given of a step's rows: themselves, or what the model makes of them."""
        return rows

    @abstractmethod
    def counted(self, rows: Sequence[Tokens], keys: Sequence[int]) -> int:
        """What `loss` sums over."""

    @abstractmethod
    def loss(self, model: nn.Module, rows: Sequence[Tokens], keys: Sequence[int], *, weighted: bool = False) -> Tensor:
        """The sum over what counts; `keys`: a number for each row, which decides what is random about it.

        `weighted`: each counts by the model's own probability of it.
        """

    # ---- how good it is ----

    @abstractmethod
    def losses(self, model: PreTrainedModel, rows: Sequence[Tokens], check: Callable[[], None]) -> list[RowLoss]:
        """Of each row, in their order.  `check` is called between batches and may raise."""

    def questions(
        self, rows: Sequence[Tokens], tokenizer: PreTrainedTokenizerBase, stops: Sequence[int], count: int
    ) -> list[Question]:
        """The first `count` rows that can be asked; none where nothing is."""
        return []

    def answers(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        asked: Sequence[Question],
        stops: Sequence[int],
        max_new_tokens: int,
        check: Callable[[], None],
        how: Sampling,
    ) -> list[Answer]:
        """One for each question, in their order."""
        return []
