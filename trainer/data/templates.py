"""A base's chat template, run so that its output says of each character whether it is the template's or a message's.

The environment, filters and globals are transformers' own; only the ways in which pieces of text are put together are replaced.
What comes out must equal, character by character, what transformers renders.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Any

from jinja2 import Template, TemplateSyntaxError, nodes
from jinja2.compiler import CodeGenerator, Frame
from jinja2.sandbox import ImmutableSandboxedEnvironment
from transformers import PreTrainedTokenizerBase
from transformers.utils.chat_template_utils import _compile_jinja_template

from swarm.errors import UserError
from swarm.printable import one_line
from trainer.data.messages import THOUGHTS, TRAIN, Turn
from trainer.data.traced import TOOLS, dumped, joined, joined_by, traced, unmarked


class _FollowsConcatenation(CodeGenerator):
    """Jinja's `~` joins with a function that knows plain strings only."""

    def visit_Concat(self, node: nodes.Concat, frame: Frame) -> None:  # noqa: N802  Jinja's name
        self.write("environment.concat(map(str, (")
        for argument in node.nodes:
            self.visit(argument, frame)
            self.write(", ")
        self.write(")))")


class _Environment(ImmutableSandboxedEnvironment):
    code_generator_class = _FollowsConcatenation
    concat = staticmethod(joined)


@lru_cache
def _compiled(source: str) -> Template:
    theirs = _compile_jinja_template(source).environment
    ours = _Environment(trim_blocks=True, lstrip_blocks=True, extensions=list(map(type, theirs.extensions.values())))
    ours.globals.update(theirs.globals)
    ours.filters.update(theirs.filters)
    tojson = theirs.filters["tojson"]
    ours.filters["tojson"] = lambda value, *how, **named: dumped(value, lambda plain: tojson(plain, *how, **named))
    ours.filters["join"], ours.filters["format"] = _join, _format
    return ours.from_string(source)


def _join(values: Iterable[Any], d: str = "", attribute: str | int | None = None) -> str:
    """Jinja's filter of this name; `attribute` names what of each value is joined."""
    picked = values if attribute is None else (value[attribute] for value in values)
    return joined_by(str(d), map(str, picked))


def _format(form: str, *values: Any, **named: Any) -> str:
    """Jinja's filter of this name, for `%s` alone; anything else gives text that is nobody's."""
    parts = form.split("%s")
    if named or "%" in "".join(parts) or len(parts) != len(values) + 1:
        return unmarked(form) % (named or values)
    return joined([parts[0], *(text for pair in zip(map(str, values), parts[1:], strict=True) for text in pair)])


def rendered(
    turns: Sequence[Turn], tools: Sequence[dict[str, Any]], tokenizer: PreTrainedTokenizerBase, *, prompt: bool = False
) -> str:
    """The conversation as text that knows whose its characters are; `prompt`: with the header of the next answer.

    Raises whatever the template raises.
    """
    source = tokenizer.get_chat_template(tools=list(tools) or None)
    owned_turns = [_owned_turn(index, turn) for index, turn in enumerate(turns)]
    return _compiled(source).render(
        messages=owned_turns,
        tools=traced(list(tools), TOOLS) if tools else None,
        documents=None,
        add_generation_prompt=prompt,
        **tokenizer.special_tokens_map,
    )


def plainly(turns: Sequence[Turn], tools: Sequence[dict[str, Any]], tokenizer: PreTrainedTokenizerBase) -> str:
    """What transformers renders."""
    messages = [{key: value for key, value in turn.items() if key != TRAIN} for turn in turns]
    return str(tokenizer.apply_chat_template(messages, tools=list(tools) or None, tokenize=False))


def _owned_turn(index: int, turn: Turn) -> Turn:
    """All texts of a message are its own, but for the role: templates make control tokens of it."""
    fields = {key: traced(value, index) for key, value in turn.items() if key not in {"role", TRAIN}}
    thoughts = next((fields[key] for key in THOUGHTS if fields.get(key) is not None), None)
    aliases = {} if thoughts is None else {"thinking": thoughts}
    named = {} if thoughts is None else {"reasoning_content": thoughts}
    return {"role": turn["role"], **aliases, **fields, **named}


def literal_text(tokenizer: PreTrainedTokenizerBase) -> str:
    """What the chat template itself can write: its text and its string constants, apart.  Raises UserError where it is none."""
    sources = tokenizer.chat_template or ""
    texts = sources.values() if isinstance(sources, dict) else [sources]
    try:
        trees = [_compile_jinja_template(source).environment.parse(source) for source in texts]
    except TemplateSyntaxError as error:
        what = f"its chat template is no Jinja (line {error.lineno}: {one_line(error.message)})"
        raise UserError("base_model", what, "correct chat_template.jinja, or take another base") from error
    found = {node.data for tree in trees for node in tree.find_all(nodes.TemplateData)}
    constants = {node.value for tree in trees for node in tree.find_all(nodes.Const)}
    return "\x00".join([*found, *(value for value in constants if isinstance(value, str))])
