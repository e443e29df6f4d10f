"""Admission rules that depend on the run's settings: who may do a role's tasks, the limit for SUCCESS, what may be promoted; pure."""

from __future__ import annotations

from collections.abc import Sequence

from swarm import events as ev
from swarm.event import Event
from swarm.policy.promotion import admit_promotion, unexamined
from swarm.settings import RunSettings
from swarm.state import Refusal, State

CHECKED = (ev.Claim, ev.Hand, ev.Verdict, ev.Promote)
"""Events that these rules are about; for the others the settings need not be read."""


def admit_by(settings: RunSettings, state: State, author: str, event: Event) -> None:
    """Raises Refusal if the run's settings forbid this event; `admission.admit` has already accepted it."""
    match event:
        case ev.Claim(beats=None):
            _admit_doer(settings, state, event.ref, author)
        case ev.Hand(to=to) if (lease := state.tasks[event.ref].lease) and lease.worker is None:
            _admit_doer(settings, state, event.ref, to)
        case ev.Verdict(result="SUCCESS") if why := above_limit(settings, event):
            raise Refusal(f"{event.ref}: {why}; that is a WARNING")
        case ev.Promote(force=None | False) if why := unexamined(settings, state, event.ref):
            raise Refusal(f"{event.ref}: {why}; or `swarm promote {event.ref} --force` with a reason")
        case ev.Promote():
            admit_promotion(state, settings.promotion, event)
        case _:
            pass


def above_limit(settings: RunSettings, verdict: ev.Verdict) -> str:
    stream = settings.streams.get(verdict.stream)
    loss, base_loss = (verdict.figures.get(name) for name in ("eval_loss", "base_eval_loss"))
    if stream is None or loss is None or base_loss is None:
        return ""
    return worse_than(loss, base_loss, stream.max_heldout_ratio)


def worse_than(loss: float, base_loss: float, limit: float) -> str:
    """Why a held-out loss leads to a WARNING; empty: it does not.  Losses in nats per supervised token."""
    ratio = loss / max(base_loss, 1e-12)
    if ratio <= limit:
        return ""
    return f"held-out loss {loss:.4g} is {ratio:.3g} x the base's {base_loss:.4g}, above max_heldout_ratio {limit:g}"


def _admit_doer(settings: RunSettings, state: State, ref: str, name: str) -> None:
    """A role for which the config names agents is reserved for them; any other task goes to the first that claims it."""
    role = state.tasks[ref].role
    doers: Sequence[str] = settings.roles.get(role, ()) if role else ()
    agents = [doer.removeprefix("agent:") for doer in doers if doer != "worker"]
    if agents and name not in agents:
        raise Refusal(f"{ref}: `roles` in the config names {', '.join(agents)} for this and not {name}; ask them")
