"""Answers of several models to the same prompts, as data and as one HTML page that needs no network; pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from html import escape
from typing import Any

from swarm.printable import printable

COUNTED = ("tokens", "seconds")


@dataclass
class Comparison:
    about: dict[str, Any]
    """`models`, base first, and how they were asked."""
    rows: list[dict[str, Any]] = field(default_factory=list)
    """`number`, `prompt`, `answers`: one of each model, in their order."""

    @property
    def models(self) -> list[str]:
        return list(self.about["models"])

    def data(self) -> dict[str, Any]:
        """Tables for programs: prompts, answers, and a row for each model."""
        return {
            "about": {key: value for key, value in self.about.items() if key not in {"models", "prompts"}},
            "models": self.summary(),
            "prompts": [{"prompt": row["number"], "text": row["prompt"]} for row in self.rows],
            "answers": [{"prompt": row["number"], **answer} for row in self.rows for answer in row["answers"]],
        }

    def summary(self) -> list[dict[str, Any]]:
        """For each model tokens, seconds and speed over all prompts, answers that ended by themselves and that equal the base's."""
        return [self._summary(at, model) for at, model in enumerate(self.models)]

    def _summary(self, at: int, model: str) -> dict[str, Any]:
        answers = [row["answers"][at] for row in self.rows]
        tokens, seconds = (sum(answer[key] for answer in answers) for key in COUNTED)
        same = sum(row["answers"][0]["text"] == row["answers"][at]["text"] for row in self.rows)
        return {
            "model": model, "answers": len(answers), "tokens": tokens, "seconds": round(seconds, 2),
            "tokens_per_second": round(tokens / seconds, 1) if seconds else None,
            "ended": sum(answer["ended"] == "stop" for answer in answers), "same_as_base": same,
        }  # fmt: skip


STYLE = """
:root { color-scheme: light dark; --ink: #1d1f21; --paper: #fff; --line: #d5d8dc; --soft: #f3f4f6; --faint: #5c6370; --mark: #0b57d0 }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6e7e9; --paper: #15171a; --line: #3a3f46; --soft: #1f2226; --faint: #a2a9b4; --mark: #8ab4f8 }
}
* { box-sizing: border-box }
body { margin: 0 auto; padding: 1.5rem; max-width: 110rem; background: var(--paper); color: var(--ink);
  font: 1rem/1.5 system-ui, sans-serif }
h1 { font-size: 1.4rem } h2 { font-size: 1rem; margin: 2rem 0 .5rem }
p.about, .figures { color: var(--faint); font-size: .85rem }
table { border-collapse: collapse; margin: 1rem 0; display: block; overflow-x: auto }
th, td { border-bottom: 1px solid var(--line); padding: .3rem .8rem; text-align: right } th:first-child, td:first-child { text-align: left }
pre { margin: 0; white-space: pre-wrap; overflow-wrap: anywhere; font: .9rem/1.45 ui-monospace, monospace }
.prompt { border-left: 3px solid var(--mark); padding: .2rem .8rem }
.answers { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 18rem), 1fr)); gap: .8rem; margin-top: .6rem }
.answer { border: 1px solid var(--line); border-radius: .4rem; background: var(--soft); padding: .6rem .8rem }
.answer h3 { margin: 0 0 .3rem; font-size: .9rem; overflow-wrap: anywhere } .cut { color: var(--mark) }
"""
POLICY = "default-src 'none'; style-src 'unsafe-inline'"
"""The page may load nothing, whatever stands in it."""


def page(comparison: Comparison, title: str) -> str:
    """One HTML file.  All words of models and users are escaped."""
    parts = [_section(row) for row in comparison.rows]
    return (
        "<!doctype html>\n"
        '<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">\n'
        f"<title>{_safe(title)}</title><style>{STYLE}</style></head>\n<body>\n<h1>{_safe(title)}</h1>\n"
        f'<p class="about">{_safe(asked_how(comparison.about))}</p>\n{_table(comparison.summary())}\n'
        f"{''.join(parts)}</body></html>\n"
    )


def asked_how(about: dict[str, Any]) -> str:
    """In a line: how the models were asked."""
    greedy = not about["temperature"]
    how = "greedy" if greedy else f"temperature {about['temperature']}, top-p {about['top_p']}, seed {about['seed']}"
    precision = ", in NF4" if about["base_in_nf4"] else ""
    system = f"; system: {about['system']}" if about.get("system") else ""
    return f"base {about['base']}{precision}; {how}; at most {about['max_new_tokens']} tokens{system}"


def _table(rows: list[dict[str, Any]]) -> str:
    heads = "".join(f'<th scope="col">{_safe(name.replace("_", " "))}</th>' for name in rows[0])
    lines = "".join(
        "<tr>" + "".join(f"<td>{_safe(str(value))}</td>" for value in row.values()) + "</tr>" for row in rows
    )
    return f"<table><thead><tr>{heads}</tr></thead><tbody>{lines}</tbody></table>"


def _section(row: dict[str, Any]) -> str:
    answers = "".join(_answer(answer) for answer in row["answers"])
    return (
        f'<section><h2>Prompt {row["number"]}</h2><pre class="prompt">{_safe(row["prompt"])}</pre>\n'
        f'<div class="answers">{answers}</div></section>\n'
    )


def _answer(answer: dict[str, Any]) -> str:
    cut = ' <span class="cut">cut</span>' if answer["ended"] != "stop" else ""
    return (
        f'<article class="answer"><h3>{_safe(answer["model"])}</h3><pre>{_safe(answer["text"])}</pre>'
        f'<p class="figures">{_safe(figures_of(answer))}{cut}</p></article>'
    )


def figures_of(answer: dict[str, Any]) -> str:
    return f"{answer['tokens']} tokens in {answer['seconds']:.2f} s, {answer['tokens_per_second']:.1f} tokens/s"


def _safe(text: str) -> str:
    return escape(printable(text))
