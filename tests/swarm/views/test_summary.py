"""The page about a run that ended, made from its log."""

from __future__ import annotations

from markdown_it import MarkdownIt

from swarm import events as ev
from swarm.log import Entry
from swarm.views.summary import summary
from tests.swarm.story import SHA, Story


def page(story: Story) -> str:
    return summary([Entry(told.seq, told.author, told.time, told.event, "") for told in story.entries])


def finished() -> Story:
    story = Story("wide", "narrow")
    story.validated("wide")
    candidate = story.state.streams["wide"].candidate
    assert candidate
    story.say("ada", ev.Object(ref="wide", why="held-out rows repeat | training rows"))
    story.say("ada", ev.Approve(ref="wide", body="they do not, I looked"))
    story.say("coordinator", ev.Fail(ref="narrow", why="loss is NaN at step 40"))
    story.say("bob", ev.Post(ref="run", body="which rank next?", asks="ada"))
    story.say("coordinator", ev.Adapter(ref="wide", tok=candidate.tok, path="streams/wide/adapter", sha256=SHA))
    story.entries.append(
        story.entries[-1].__class__(
            99,
            "coordinator",
            story.now,
            ev.Promote(ref="wide", path="promoted", sha256=SHA, why="lowest eval_loss 0.5"),
        )
    )
    return story


def test_it_says_who_won_and_why_what_failed_and_what_people_said() -> None:
    text = page(finished())
    assert text.startswith(
        "# demo: wide is promoted\n\nQuestion: which is best of wide, narrow?\n\nWhy: lowest eval_loss 0.5.\n"
    )
    assert "- narrow: loss is NaN at step 40" in text
    assert "held-out rows repeat | training rows" in text and ": they do not, I looked" in text
    assert "- bob (entry" in text and "to ada: which rank next?" in text
    assert "PeftModel.from_pretrained" in text and "up to entry 99" in text


def test_its_table_is_a_table_with_the_bare_base_beside() -> None:
    [table] = [
        token
        for token in MarkdownIt("commonmark").enable("table").parse(page(finished()))
        if token.type == "table_open"
    ]
    assert table
    rows = [line for line in page(finished()).splitlines() if line.startswith("| ")]
    assert rows[0].startswith("| stream | state | ") and rows[-1].startswith("| bare base |")
    assert len({row.count("|") for row in rows}) == 1 and any("0.500" in row and "SUCCESS" in row for row in rows)


def test_a_run_that_was_stopped_has_a_page_too() -> None:
    story = Story("wide")
    story.say("owner", ev.Stop(ref="run"))
    story.say("coordinator", ev.End(ref="run", rc=130))
    text = page(story)
    assert text.startswith(
        "# demo: stopped before its end\n\nQuestion: is wide better than the bare base?\n\n| stream |"
    )
