"""Carries out what was decided, through the record, the bus and the supervisor."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence

from bus.hub import Hub
from swarm import events as ev
from swarm.artifacts import publish, scores, warmstart
from swarm.coordinator.pruning import Pruning
from swarm.coordinator.record import FULL_DISK_SECONDS, NAME, NoSpace, Record
from swarm.coordinator.researching import Researching
from swarm.coordinator.retraining import Retraining
from swarm.coordinator.suggesting import Suggesting
from swarm.coordinator.supervisor import Supervisor
from swarm.errors import UserError, UserErrors
from swarm.launch.layout import Layout
from swarm.log import NO_SPACE
from swarm.messages import Assign, Order, Piece, Quit, WarmStart
from swarm.planning import adding, gpus
from swarm.planning.measured import grown, widened
from swarm.policy import commands, yielding
from swarm.policy.comparison import compared
from swarm.policy.leases import JUDGES
from swarm.policy.promotion import Choice
from swarm.policy.results import token_in
from swarm.rundir import RunFolder
from swarm.settings import RunSettings
from swarm.state import Refusal, Stream
from swarm.surroundings import cores

COMPARISON_SEED = 0
"""Of the draws of a comparison: the same scores are always judged the same way."""


class Effects:
    """One per coordinator; a command that raises Refusal has changed nothing."""

    def __init__(self, record: Record, hub: Hub, crew: Supervisor, folder: RunFolder) -> None:
        self.record, self.hub, self.crew, self.folder = record, hub, crew, folder
        self._suggesting = Suggesting(record, folder, self.add_for)
        self._pruning = Pruning(record)
        self.researching = Researching(record, folder, self.add_for)
        self.retraining = Retraining(record, folder, self.add_for)
        self._adding = asyncio.Lock()
        self._widened: object = None
        """The moment at which more slots were last looked for."""
        self._is_full = False
        """Since the last adapter that could not be placed for lack of space."""

    @property
    def settings(self) -> RunSettings:
        return self.record.settings

    async def do(self, command: commands.Command) -> None:
        match command:
            case commands.Grant(refs, worker):
                await self._grant(refs, worker)
            case commands.Revoke():
                await self._revoke(command)
            case commands.SendOrder(ref, token, worker, what):
                if self.crew.should_resend(worker, token, what):
                    await self.hub.send(worker, Order.type, Order(ref=ref, token=token, what=what).toon())
            case commands.GoBack(stream, why):
                await self._go_back(stream, why)
            case commands.GiveUp(stream, why):
                await self.record.say(ev.Fail(ref=stream, why=why))
            case commands.StopStream(stream, why):
                await self.record.say(ev.Stop(ref=stream, why=why))
            case commands.Suggest():
                self._suggesting.begin(command)
            case commands.AskPruner():
                await self._pruning.carry_out(command)
            case commands.OpenTask(ref, title):
                await self.record.say(ev.Task(ref=ref, title=title))
            case commands.JoinProposal():
                self.researching.join(command)
            case commands.JudgeProposal():
                await self.researching.judge(command)
            case commands.DiscardProposal():
                await self.researching.discard(command)
                self.retraining.concluded()
            case commands.BeginRetraining():
                await self.retraining.begin(command)
            case commands.JoinRetrained():
                self.retraining.join(command)
            case commands.BeginCanary():
                await self.retraining.begin_canary(command)
            case commands.JudgeCanary():
                await self.retraining.judge(command)
            case commands.Publish(stream):
                await self._publish(stream)
            case commands.Compare(streams, key):
                await self._compare(streams, key)
            case commands.LookAtSealed(stream):
                weights = self.record.state.streams[stream].adapter
                assert weights
                look = ev.Look(ref=stream, sha256=weights.sha256, number=self.record.state.looks + 1)
                await self.record.say(look)
            case commands.PromoteWinner(choice):
                await self._promote_winner(choice)
            case commands.Dismiss(worker, why):
                if self.crew.dismiss(worker):
                    await self.hub.send(worker, Quit.type, Quit(why=why).toon())
            case commands.Finish(rc, why):
                await self.record.say(ev.End(ref="run", rc=rc, body=why))

    async def promote_for(self, event: ev.Promote, author: str, via: str | None) -> int:
        """Carry out a promotion that a member asked for.  Raises Refusal if the rules do not allow it."""
        self.record.admit(author, event)
        return await self._promote(event, author, via)

    async def yield_for(self, event: ev.Yield, author: str, via: str | None) -> int:
        """Record that devices are for others; the supervisor follows.  Raises Refusal where the run has not so many."""
        self.record.admit(author, event)
        yielding.admit_yield(event, self.crew.specs(), cores())
        return (await self.record.add([(author, event)], via))[-1].seq

    async def add_for(self, event: ev.Add, author: str, via: str | None, most_slots: int | None = None) -> int:
        """Let a stream join that a member or a search asked for.  Raises Refusal if it may not, and then nothing has changed."""
        async with self._adding:
            self.record.admit(author, event)
            try:
                layout = await asyncio.to_thread(self._layout_with, event, most_slots)
                with warmstart.kept(self.folder, self.record.state, event) as whole:
                    layout.write(self.folder.layout)  # first: a stream that no worker takes would wait for ever
                    entries = self.record.append([(author, whole)], via)
            except (UserError, UserErrors, OSError) as error:
                raise Refusal(str(error)) from error
            self.crew.use(layout)
        await self.record.publish(entries)
        return entries[-1].seq

    def _layout_with(self, event: ev.Add, most_slots: int | None) -> Layout:
        measured = self.crew.measured(self.record.state)
        return adding.admitted(self.folder, self.settings, event, self.crew.layout, measured, most_slots)

    async def widen(self) -> None:
        """More slots where trainings were measured, streams wait, and memory holds them; looked at once for each such moment."""
        waiting = [task.ref.partition("/")[0] for task in self.record.state.ready() if task.role == "train"]
        measured = self.crew.measured(self.record.state)
        moment = waiting, {name: [held.ref for held in trainings] for name, trainings in measured.items()}
        if not waiting or not measured or moment == self._widened or self._adding.locked():
            return
        self._widened = moment
        async with self._adding:
            devices = await asyncio.to_thread(gpus.devices, self.settings.placement)
            before, now = self.crew.layout, widened(self.crew.layout, self.settings, measured, waiting, devices)
            now.write(self.folder.layout)
            self.crew.use(now)
        for note in grown(before, now, measured):
            await self.record.say(ev.Post(ref="run", body=note))

    async def _grant(self, refs: Sequence[str], worker: str) -> None:
        """The entries first, then the assignment to the worker, then the entries to the watchers.

        A worker without a connection gets no lease: it has just ended, or it reconnects (after a freeze of this process, for example).
        """
        if not await self.hub.reaches(worker):
            self.crew.unreached(worker)
            return
        ttl = self.settings.lease_seconds
        entries = self.record.append([(worker, ev.Claim(ref=ref, ttl=ttl, beats=True)) for ref in refs])
        tokens = {ref: lease.token for ref in refs if (lease := self.record.state.tasks[ref].lease)}
        assignment = Assign(pieces=[self._piece(ref, token) for ref, token in tokens.items()])
        reached = await self.hub.send(worker, Assign.type, assignment.toon())
        await self.record.publish(entries)
        if not reached:
            self.crew.unreached(worker)
            endings = tuple(commands.Ending(ref, token) for ref, token in tokens.items())
            await self._revoke(commands.Revoke(endings, "the worker could not be reached", failed=False))

    async def _revoke(self, command: commands.Revoke) -> None:
        """End all leases of the command with one append."""
        cause = {"why": command.why, "failed": command.failed, "held": command.held if command.held > 1 else None}
        ends = [{"ref": one.ref, "tok": one.token, "worked": one.worked, **cause} for one in command.endings]
        await self.record.add([(NAME, ev.Expire.model_validate(end)) for end in ends])
        if command.kill:
            self.crew.kill(command.kill)

    def _piece(self, ref: str, token: int) -> Piece:
        task = self.record.state.tasks[ref]
        stream = self.record.state.streams[ref.partition("/")[0]]
        assert task.role
        judged = stream.candidate if task.role in JUDGES else None
        return Piece(
            ref=ref,
            token=token,
            role=task.role,
            stream=stream.name,
            settings=self.settings.streams[stream.name],
            prepared=stream.prepared.path if stream.prepared else None,
            prepared_sha256=stream.prepared.sha256 if stream.prepared else None,
            resume_from=self._resumable(stream) if task.role == "train" else [],
            spent_seconds=task.seconds if task.role == "train" else 0.0,
            checkpoint=judged.path if judged else None,
            sha256=judged.sha256 if judged else None,
            figures=stream.figures_of(judged.path) if judged else {},
            warm=self._warm(stream) if task.role == "train" else None,
        )

    def _warm(self, stream: Stream) -> WarmStart | None:
        """From where its training begins, if it is a clone; its optimizer may be another."""
        origin = stream.added
        if origin is None or origin.path is None or origin.sha256 is None:
            return None
        kept, own = (self.settings.streams[name].optimizer for name in (origin.like, stream.name))
        return WarmStart(
            path=origin.path, sha256=origin.sha256, stream=origin.like, step=origin.step or 0, moments=kept == own
        )

    def _resumable(self, stream: Stream) -> list[str]:
        """Whole checkpoints on disk, newest first, without those that an agent wrote after its lease had ended."""
        found = self.folder.checkpoints(stream.name)
        return [path for path in found if stream.may_go_on_from(token_in(stream.name, path), path)]

    async def _publish(self, name: str) -> None:
        try:
            with publish.adapter(self.folder, self.record.state, name, self.settings.streams[name]) as event:
                entries = self.record.append([(NAME, event)])
            await self.record.publish(entries)
        except publish.PublishError as error:
            await self._go_back(name, f"publishing the adapter: {error}")
        except OSError as error:
            await self._wait_for_space(error)
            await self.record.say(ev.Fail(ref=name, why=f"publishing the adapter: {error}"))

    async def _compare(self, names: Sequence[str], key: str) -> None:
        """A stream whose scores cannot be read is given up; the others are compared then."""
        streams = [self.record.state.streams[name] for name in names]
        reported = {one.name: one.score.scores_sha256 for one in streams if one.score and one.score.scores_sha256}
        try:
            found = scores.of_streams(self.folder, reported, self.settings.promotion.metric)
        except scores.ScoresError as error:
            await self.record.say(ev.Fail(ref=error.stream, why=f"comparison: {error}"))
            return
        # Beside the loop: thousands of draws take a second, and heartbeats go on.
        draws = random.Random(COMPARISON_SEED)
        await self.record.say(await asyncio.to_thread(compared, streams, self.settings, found, draws, key))

    async def _wait_for_space(self, error: OSError) -> None:
        """A full disk fails no stream: it is noted once, and after a while NoSpace is raised and the decision made again."""
        if error.errno in NO_SPACE:
            if not self._is_full:
                self.crew.news.append(
                    "no space to publish an adapter: free some, it is tried again until there is room"
                )
            self._is_full = True
            await asyncio.sleep(FULL_DISK_SECONDS)
            raise NoSpace(f"no space to publish an adapter ({error.strerror})") from error

    async def _go_back(self, name: str, why: str) -> None:
        """Go back to the newest earlier checkpoint that is still whole on disk; old ones are removed as training goes on."""
        for saved in self.record.state.streams[name].earlier():
            if publish.intact(self.folder, saved.path, saved.sha256) == "ok":
                facts = {"tok": saved.tok, "step": saved.step, "path": saved.path, "sha256": saved.sha256}
                await self.record.say(ev.Back.model_validate({"ref": name, "why": why, **facts}))
                return
        await self.record.say(ev.Fail(ref=name, why=f"validation: {why}; no earlier checkpoint is left"))

    async def _promote_winner(self, choice: Choice) -> None:
        assert choice.winner
        published = self.record.state.streams[choice.winner].adapter
        assert published
        try:
            await self._promote(
                ev.Promote(ref=choice.winner, path=published.path, sha256=published.sha256, why=choice.why)
            )
        except NoSpace:
            raise
        except Refusal as refusal:
            await self.record.say(ev.Fail(ref=choice.winner, why=str(refusal)))

    async def _promote(self, wished: ev.Promote, author: str = NAME, via: str | None = None) -> int:
        """Raises Refusal, and then `promoted/` is as it was."""
        try:
            with publish.promotion(self.folder, self.record.state, wished, self.settings, author) as event:
                entries = self.record.append([(author, event)], via)
        except publish.PublishError as error:
            raise Refusal(f"promotion of {wished.ref}: {error}") from error
        except OSError as error:
            await self._wait_for_space(error)
            raise Refusal(f"promotion of {wished.ref}: {error}") from error
        self._is_full = False
        await self.record.publish(entries)
        return entries[-1].seq
