"""Out: what was decided is carried out, through the record, the bus and the crew."""

from __future__ import annotations

from bus.hub import Hub
from swarm import events as ev
from swarm import promotion, publish, schedule
from swarm.admission import admit
from swarm.crew import Crew
from swarm.log import render
from swarm.messages import Assign, Order, Quit
from swarm.record import NAME, Record
from swarm.rundir import RunFolder
from swarm.settings import RunSettings
from swarm.state import Refusal


class Deeds:
    """One per coordinator; every deed that raises Refusal has changed nothing."""

    def __init__(self, record: Record, hub: Hub, crew: Crew, folder: RunFolder, settings: RunSettings) -> None:
        self.record, self.hub, self.crew, self.folder, self.settings = record, hub, crew, folder, settings

    async def do(self, command: schedule.Command) -> None:
        match command:
            case schedule.Claim(ref, worker):
                await self._claim(ref, worker)
            case schedule.Expire(ref, token, why, failed):
                lease = self.record.state.tasks[ref].lease
                await self.record.say(ev.Expire(ref=ref, tok=token, why=why, failed=failed))
                if lease and lease.worker:
                    self.crew.kill(lease.worker, ref)
            case schedule.Order(ref, token, worker, what):
                if self.crew.may_order(worker, what):
                    await self.hub.send(worker, Order.type, Order(ref=ref, token=token, what=what).toon())
            case schedule.GoBack(stream, why):
                await self._go_back(stream, why)
            case schedule.GiveUp(stream, why):
                await self.record.say(ev.Fail(ref=stream, why=why))
            case schedule.Publish(stream):
                await self._publish(stream)
            case schedule.Promote(choice):
                assert choice.winner
                try:
                    await self._promote(choice.winner, choice.why)
                except Refusal as refusal:
                    await self.record.say(ev.Fail(ref=choice.winner, why=str(refusal)))
            case schedule.Dismiss(worker):
                if self.crew.dismiss(worker):
                    await self.hub.send(worker, Quit.type, Quit(why="no work is left for your roles").toon())
            case schedule.Finish(rc, why):
                await self.record.say(ev.End(ref="run", rc=rc, body=why))

    async def promote_for(self, event: ev.Promote, author: str) -> int:
        """What somebody asked to promote, if the rules allow it.  Raises Refusal."""
        admit(self.record.state, author, event, self.record.clock())
        promotion.admit_promotion(self.record.state, self.settings.promotion, event)
        return await self._promote(event.ref, event.why, author, force=bool(event.force))

    async def _claim(self, ref: str, worker: str) -> None:
        """The entry first, then the worker hears of it, then everybody."""
        claim = ev.Claim(ref=ref, ttl=self.settings.lease_seconds, beats=True)
        [entry] = self.record.append([(worker, claim)])
        self.crew.busy(worker, ref, entry.seq)
        reached = await self.hub.send(worker, Assign.type, self._assignment(ref, entry.seq).toon())
        await self.hub.publish("entry", render(entry))
        if not reached:
            self.crew.idle(worker, ref)
            why = "the worker could not be reached"
            await self.record.say(ev.Expire(ref=ref, tok=entry.seq, why=why, failed=False))

    def _assignment(self, ref: str, token: int) -> Assign:
        task = self.record.state.tasks[ref]
        stream = self.record.state.streams[ref.partition("/")[0]]
        assert task.role
        judged = stream.candidate if task.role in {"validate", "evaluate"} else None
        return Assign(
            ref=ref,
            token=token,
            role=task.role,
            stream=stream.name,
            settings=self.settings.streams[stream.name],
            prepared=stream.prepared.path if stream.prepared else None,
            resume_from=self.folder.checkpoints(stream.name) if task.role == "train" else [],
            checkpoint=judged.path if judged else None,
            sha256=judged.sha256 if judged else None,
            heldout=stream.heldout_of(judged.path) if judged else None,
        )

    async def _publish(self, name: str) -> None:
        try:
            event = publish.adapter(self.folder, self.record.state, name, self.settings.streams[name])
        except publish.PublishError as error:
            await self._go_back(name, f"publishing the adapter: {error}")
        except OSError as error:
            await self.record.say(ev.Fail(ref=name, why=f"publishing the adapter: {error}"))
        else:
            await self.record.say(event)

    async def _go_back(self, name: str, why: str) -> None:
        """To the newest earlier checkpoint whose weights still stand; old ones are removed as training goes on."""
        for saved in self.record.state.streams[name].earlier():
            if publish.intact(self.folder, saved.path, saved.sha256) == "ok":
                facts = {"tok": saved.tok, "step": saved.step, "path": saved.path, "sha256": saved.sha256}
                await self.record.say(ev.Back.model_validate({"ref": name, "why": why, **facts}))
                return
        await self.record.say(ev.Fail(ref=name, why=f"validation: {why}; no earlier checkpoint is left"))

    async def _promote(self, name: str, why: str, author: str = NAME, *, force: bool = False) -> int:
        """Files first, then the entry: an entry says what is so.  Raises Refusal, and then `promoted/` is as it was."""
        settings = self.settings.streams[name]
        try:
            event = publish.promotion(self.folder, self.record.state, name, settings, why, force=force)
        except (publish.PublishError, OSError) as error:
            raise Refusal(f"promotion of {name}: {error}") from error
        return (await self.record.add([(author, event)]))[-1].seq
