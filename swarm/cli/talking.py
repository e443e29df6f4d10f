"""`swarm open, post, amend, object, approve, inbox, wait, review, skill, mcp`: messages between agents.

Each question, answer, objection and approval is an entry of the shared log under the name given with `--as`.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from swarm.cli.options import (
    About,
    As,
    Form,
    Idem,
    Judged,
    NamedRun,
    OfEntry,
    Run,
    RunArgument,
    Runs,
    agent_of,
    one_run,
    say,
    tell,
)

if TYPE_CHECKING:
    from swarm.agents.inbox import Inbox, Message
    from swarm.state import State

IN_VAIN = 6
"""Exit status if the answer did not come in time."""


def add_to(app: typer.Typer) -> None:
    for command in (open_, post, amend, object_, approve, inbox, wait, review, skill, mcp):
        app.command(command.__name__.rstrip("_"))(command)


def open_(
    name: Annotated[str, typer.Argument(help="what the run will be about")] = "work",
    *,
    author: As = None,
    runs: Runs = Path("runs"),
    form: Form = None,
) -> None:
    """Open a log to plan and work in, before or without a run.

    `swarm run CONFIG --in RUN` starts one there.
    """
    from swarm.agents.agent import open_run
    from swarm.rundir import user_name

    folder = open_run(name, user_name() if author is None else author, runs)
    tell(str(folder.path), {"run": folder.name, "path": str(folder.path)}, form)


def post(
    ref: About,
    text: Annotated[str, typer.Argument(help="the note; `@name` reaches that agent's inbox; `-` reads standard input")],
    *,
    ask: Annotated[
        str | None, typer.Option("--ask", metavar="NAME", help="a question to this agent; it stays open until answered")
    ] = None,
    wait: Annotated[
        float, typer.Option("--wait", metavar="SECONDS", help="with --ask: wait for the answer and print it")
    ] = 0.0,
    of: OfEntry = None,
    author: As = None,
    run: Run = None,
    idem: Idem = None,
    form: Form = None,
) -> None:
    """Write a note into the log, ask somebody, or answer."""
    from swarm.errors import UserError
    from swarm.views import logview

    if wait and ask is None:
        raise UserError("--wait", "waits for an answer, and nobody is asked", "add --ask NAME, or leave it out")
    if of is not None and ask is not None:
        raise UserError("--of", "answers an entry, and --ask puts a question", "use two posts")
    body = sys.stdin.read() if text == "-" else text
    with agent_of(run, author) as agent:
        check_ref(agent.state, ref)
        if ask is not None:
            seq, answer = agent.ask(ask, body, ref, wait_seconds=wait, idem=idem)
    if ask is None:
        say("post", run, author, form, ref=ref, body=body, of=of, idem=idem)
        return
    answered = {"answer": answer.event.body, "by": answer.author, "at": answer.seq} if answer else {}
    line = logview.line(answer) if answer else f"{seq} post {ref}: {ask} has not answered yet"
    tell(line, {"seq": seq, "kind": "post", "ref": ref, **answered}, form)
    if wait and not answer:
        raise typer.Exit(IN_VAIN)


REFS_SHOWN = 8
"""At most so many streams, and agents' tasks, are named to whoever names none of them."""


def check_ref(state: State, ref: str) -> None:
    """Raises UserError for a ref that names no stream or task of the run: nobody would find a note on it."""
    from difflib import get_close_matches

    from swarm.errors import UserError

    known = {"run", "-", *state.streams, *state.tasks}
    tasks = [name for name, task in state.tasks.items() if task.role is None]
    there = [*list(state.streams)[:REFS_SHOWN], *tasks[:REFS_SHOWN], "run"]
    if state.run is None or ref in known or ref.partition("/")[0] in {task.partition("/")[0] for task in state.tasks}:
        return
    near = get_close_matches(ref, known, n=1)
    fix = (
        f"did you mean {near[0]}?"
        if near
        else f"there is {', '.join(there)}, a stream's task such as {there[0]}/train, or `-` for nothing in particular"
    )
    raise UserError(ref, "names no stream or task of this run", fix)


def amend(
    of: Annotated[int, typer.Argument(metavar="SEQ", help="the entry")],
    text: Annotated[str, typer.Argument(help="what is right")],
    *,
    author: As = None,
    run: Run = None,
    idem: Idem = None,
    form: Form = None,
) -> None:
    """Correct an entry; the log keeps both."""
    with agent_of(run, author) as agent:
        seq = agent.amend(of, text, idem=idem)
    tell(f"{seq} amend of {of}", {"seq": seq, "kind": "amend", "of": of, "by": agent.name}, form)


def object_(
    ref: Judged,
    why: Annotated[str, typer.Argument(help="the reason")],
    *,
    of: OfEntry = None,
    author: As = None,
    run: Run = None,
    idem: Idem = None,
    form: Form = None,
) -> None:
    """Object and say why; a promotion waits until you approve.

    An objection to an entry (`--of`) that is about `-` or about an agents' task makes no promotion wait.
    """
    say("object", run, author, form, ref=ref, why=why, of=of, idem=idem)


def approve(
    ref: Judged,
    text: Annotated[str, typer.Argument(help="a word on it")] = "",
    *,
    of: OfEntry = None,
    author: As = None,
    run: Run = None,
    idem: Idem = None,
    form: Form = None,
) -> None:
    """Agree to a stream's promotion, or to an entry (`--of`).

    It takes your own objection back.  Whose approval is still missing is printed.
    """
    from swarm import config
    from swarm.views.streamrows import still_waits

    say("approve", run, author, form, ref=ref, of=of, body=text, idem=idem)
    with agent_of(run, author) as agent:
        still = still_waits(agent.state, config.of_run(agent.folder, agent.state.added), ref)
    if still and of is None:
        print(f"{ref} {still}", file=sys.stderr)


def wait(
    run: RunArgument = None,
    *,
    until: Annotated[
        str,
        typer.Option(
            "--until",
            metavar="'A | B'",
            help="done, failed, stalled, verdict, waits, question, claimable, concluded, plateau, 'new_best>0.01'",
        ),
    ] = "done | failed | waits | question",
    timeout: Annotated[
        float, typer.Option("--timeout", metavar="SECONDS", help="exit with 6 after this time")
    ] = 3600.0,
    since: Annotated[
        int | None, typer.Option("--since", metavar="SEQ", min=0, help="what is new after this; the kept cursor stays")
    ] = None,
    coalesce: Annotated[
        float, typer.Option("--coalesce", metavar="SECONDS", help="wait so long for what else happens")
    ] = 0.0,
    budget: Annotated[int, typer.Option("--budget", metavar="TOKENS", min=1, help="of the answer")] = 400,
    author: As = None,
    named: NamedRun = None,
    form: Form = None,
) -> None:
    """Wait until something happens; print what changed.

    That is, since you last waited.
    Exit status: 0 a condition is met, 1 the run ended otherwise, 6 the time is over.
    """
    from swarm.agents.waiting import conditions
    from swarm.cli import screen

    wanted = conditions(until)
    with agent_of(one_run(run, named), author) as agent:
        woken = agent.wait(
            " | ".join(wanted), timeout_seconds=timeout, since=since, budget_tokens=budget, coalesce_seconds=coalesce
        )
    screen.print_data(woken.data(), form or False)
    raise typer.Exit(woken.status)


def inbox(
    *,
    author: As = None,
    since: Annotated[
        int | None, typer.Option("--since", metavar="SEQ", min=0, help="look from here; the kept cursor stays")
    ] = None,
    peek: Annotated[bool, typer.Option("--peek", help="look, and find it again next time")] = False,
    run: Run = None,
    form: Form = None,
) -> None:
    """Unread messages to you, and what waits for you.

    Open questions, tasks that wait for you, and those that you hold.
    """
    with agent_of(run, author) as agent:
        found = agent.inbox(since=since, peek=peek)
    tell(inbox_text(found), inbox_data(found), form)


def inbox_data(found: Inbox) -> dict[str, Any]:
    return {
        "agent": found.agent,
        "at": found.at,
        "messages": [{"seq": m.entry.seq, "why": m.why, **_row(m)} for m in found.messages],
        "questions": [{"seq": m.entry.seq, **_row(m)} for m in found.questions],
        "waiting": [{"task": ref, "until": round(until)} for ref, until in found.waiting],
        "promotion": found.promotion or None,
        "held": [{"task": ref, "token": token, "until": round(until)} for ref, token, until in found.held],
    }


def _row(message: Message) -> dict[str, Any]:
    text = {"text": message.text, "amended": message.amended or None}
    return {"ref": message.entry.event.ref, "by": message.entry.author, **text}


def inbox_text(found: Inbox) -> str:
    from swarm.views import logview

    lines = [_marked(f"{m.why:<9} {logview.line(m.entry)}", m) for m in found.messages]
    lines += [_question_text(question) for question in found.questions]
    lines += [f"waits for you {ref}: `swarm claim {ref}`" for ref, _ in found.waiting]
    if found.promotion:
        lines.append(
            f"waits for you the promotion of {found.promotion}: `swarm approve {found.promotion}` or `swarm object`"
        )
    lines += [f"you hold {ref} token {token}" for ref, token, _ in found.held]
    return "\n".join(lines) or f"nothing new up to {found.at}"


def _question_text(question: Message) -> str:
    seq, ref = question.entry.seq, question.entry.event.ref
    asked = _marked(f"{question.why} {seq} from {question.entry.author} about {ref}: {question.text}", question)
    return f"{asked}  (`swarm post {ref} '…' --of {seq}`; `approve` and `object` take --of too)"


def _marked(line: str, message: Message) -> str:
    return f"{line}  ← amended: {message.amended}" if message.amendment else line


def review(
    ref: About,
    question: Annotated[str, typer.Argument(help="what is to be judged")],
    *,
    between: Annotated[str, typer.Option("--between", metavar="NAMES", help="who judges, with commas: ada,bob")],
    rounds: Annotated[int, typer.Option("--rounds", min=1, help="how often is asked at most")] = 3,
    answer_seconds: Annotated[float, typer.Option("--answer-seconds", help="how long each round waits")] = 300.0,
    author: As = None,
    run: Run = None,
    idem: Idem = None,
    form: Form = None,
) -> None:
    """Let named agents judge in rounds; the outcome is an entry.

    Until all agree, one objects, or the limit is reached.  Exit status 0 agreed, 1 not.
    """
    names = [name.strip() for name in between.split(",") if name.strip()]
    with agent_of(run, author) as agent:
        outcome = agent.review(ref, names, question, rounds=rounds, answer_seconds=answer_seconds, idem=idem)
    tell(outcome.text(), outcome.data(), form)
    raise typer.Exit(0 if outcome.result == "agreed" else 1)


def skill(*, form: Form = None) -> None:
    """Print a guide for language models."""
    from swarm.agents import skill as guide
    from swarm.cli import screen

    if form is not None:
        screen.print_data({"guide": guide.TEXT}, form)
        return
    print(guide.TEXT, end="")


def mcp(*, author: As = None, run: Run = None) -> None:
    """Serve an MCP client over standard input and output.

    It acts under the name given with --as, with an agent's key: the owner's is never lent to a model.
    """
    from swarm.errors import UserError

    if author is None:
        raise UserError("swarm mcp", "needs a name: a model does not act as the run's owner", "swarm mcp --as NAME")
    try:
        from swarm.agents.mcp import server
    except ModuleNotFoundError as error:
        raise UserError("swarm mcp", f"needs the package {error.name}", "pip install 'toonswarm[agents]'") from None
    from swarm import rundir
    from swarm.rundir import checked_name

    if run is None and next(rundir.all_runs(rundir.runs_here()), None) is None:
        server(None, checked_name(author)).run(transport="stdio")
        return
    with agent_of(run, author) as agent:
        server(agent).run(transport="stdio")
