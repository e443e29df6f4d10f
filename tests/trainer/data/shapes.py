"""Chat templates drawn at random, each with what it must show of a conversation: the oracle of the property test.

A shape is one choice for each way in which the templates of public models differ; `template` writes it in Jinja and `answers`
in Python, apart from each other.
"""

from __future__ import annotations

from dataclasses import dataclass

END, BEGIN, MARK = "<|im_end|>", "<|begin|>", "<|mark|>"
CONTROLS = [END, BEGIN, MARK, "<|user|>", "<|assistant|>", "<|system|>", "<|tool|>"]


@dataclass(frozen=True)
class Shape:
    header: str
    """special: `<|role|>`; line: a mark, the role, a line break; words: `role: `."""
    break_after_end: bool
    begins: int
    """How many begin tokens stand in front."""
    trailing: str
    """What stands at the end unless a generation prompt is asked for, as Phi-3 has it."""
    trims: bool
    """Blanks round a message's words are removed."""
    cuts_thoughts: bool
    """Of an answer only what follows `</think>` is kept, as R1 does."""
    empty_thought: bool
    """The last answer begins with an empty thought, as Qwen3's does."""
    opens_thought: bool
    """The generation prompt begins a thought."""
    opens_line: bool
    """With a line break behind its mark, which the empty thought of an answer lacks: the two part behind the header."""
    prompts: bool
    """The template knows of generation prompts."""
    system: str
    """kept, refused, or merged into the first user's message."""
    alternates: bool
    """Users and assistants must take turns."""

    def template(self) -> str:
        content = "m['content']" + (" | trim" if self.trims else "")
        cut = (
            "{%- if '</think>' in c -%}{%- set c = c.split('</think>')[-1] -%}{%- endif -%}"
            if self.cuts_thoughts
            else ""
        )
        thought = "{{- '<think></think>' -}}" if self.empty_thought else ""
        refusals = ""
        if self.alternates:
            refusals += (
                "{%- for m in messages if m['role'] in ['user', 'assistant'] -%}"
                "{%- if (m['role'] == 'user') != (loop.index0 % 2 == 0) -%}{{- raise_exception('roles must alternate') -}}"
                "{%- endif -%}{%- endfor -%}"
            )
        if self.system == "refused":
            refusals += "{%- if messages and messages[0]['role'] == 'system' -%}{{- raise_exception('no system role') -}}{%- endif -%}"
        system, loop = "", "messages"
        if self.system == "merged":
            system = (
                "{%- set ns = namespace(first=true, system='', rest=messages) -%}"
                "{%- if messages and messages[0]['role'] == 'system' -%}"
                "{%- set ns.system = messages[0]['content'] + '\n\n' -%}{%- set ns.rest = messages[1:] -%}{%- endif -%}"
            )
            loop = "ns.rest"
            merged = "{%- if m['role'] == 'user' and ns.first -%}{%- set c = ns.system + c -%}{%- set ns.first = false -%}{%- endif -%}"
        else:
            merged = ""
        after = "\n" if self.break_after_end else ""
        thought_begun = "<think>" + "\n" * self.opens_line
        opened = self.head_of("assistant") + (thought_begun if self.opens_thought else "")
        prompt = "{%- if add_generation_prompt -%}{{- '" + opened + "' -}}{%- endif -%}" if self.prompts else ""
        trailing = (
            "{%- if not add_generation_prompt -%}{{- '" + self.trailing + "' -}}{%- endif -%}" if self.trailing else ""
        )
        return (
            refusals + system + "{{- '" + BEGIN * self.begins + "' -}}"
            "{%- for m in " + loop + " -%}{%- set c = " + content + " -%}" + merged
            + "{{- " + self._head_code() + " -}}{%- if m['role'] == 'assistant' -%}" + cut
            + "{%- if loop.last -%}" + thought + "{%- endif -%}{%- endif -%}"
            "{{- c + '" + END + after + "' -}}{%- endfor -%}" + prompt + trailing
        )  # fmt: skip

    def head_of(self, role: str) -> str:
        return {"special": f"<|{role}|>", "line": f"{MARK}{role}\n", "words": f"{role}: "}[self.header]

    def _head_code(self) -> str:
        return {
            "special": "'<|' + m['role'] + '|>'",
            "line": f"'{MARK}' + m['role'] + '\n'",
            "words": "m['role'] ~ ': '",
        }[self.header]

    def answers(self, turns: list[dict[str, str]]) -> list[str] | None:
        """What is supervised of each answer; None where the row must be refused."""
        roles = [turn["role"] for turn in turns]
        speakers = [role for role in roles if role in {"user", "assistant"}]
        if self.alternates and speakers != (["user", "assistant"] * len(speakers))[: len(speakers)]:
            return None
        if roles[0] == "system" and (self.system == "refused" or (self.system == "merged" and "user" not in roles)):
            return None
        found = [self._answer(turns, at) for at, role in enumerate(roles) if role == "assistant"]
        return None if "" in found else [answer + END for answer in found]

    def _answer(self, turns: list[dict[str, str]], at: int) -> str:
        words = turns[at]["content"]
        words = words.strip() if self.trims else words
        words = words.rpartition("</think>")[2] if self.cuts_thoughts else words
        if not words or not self.empty_thought or at < len(turns) - 1 or not self.prompts:
            return words  # without generation prompts nothing tells where a header ends: the words alone are counted
        return ("</think>" if self.opens_thought and not self.opens_line else "<think></think>") + words
