"""Settings that are valid alone but contradict each other: a metric that is not measured, a step that is never reached."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec

from swarm import figures, kinds
from swarm.config import engines, searches
from swarm.config.engines import parts_of
from swarm.config.paths import files_of
from swarm.config.tree import Node, Problems
from swarm.policy.templates import BUILT_IN
from swarm.settings import PLAIN, WITHOUT_WARM_UP, Dataset, Part, RunSettings, StreamSettings

DATASETS = ("datasets", "test_datasets", "val_datasets", "sealed_datasets")


def check(root: Node, run: RunSettings, problems: Problems) -> None:
    _check_promotion(root, run, problems)
    searches.check_research(root, run, problems)
    _check_feedback(root, run, problems)
    _check_alerts(root, run, problems)
    for name, settings in run.streams.items():
        stream = root.items["streams"].items[name]
        _check_held_out(stream, settings, run, problems)
        _check_metrics(stream, settings, run, problems)
        _check_steps(stream, settings, problems)
        _check_kinds(stream, settings, problems)
        _check_pairs(stream, settings, problems)
        _check_row_types(stream, settings, problems)
        _check_stops(stream, settings, problems)
        _check_controller(stream, settings, problems)
        searches.check(root, stream, settings, run, problems)
        _check_precision(stream, settings, problems)
        engines.check(stream, settings, problems)
        _check_leaks(stream, settings, problems)
        _check_data(stream, settings, problems)


def _add(group: Node, key: str, what: str, fix: str, problems: Problems) -> None:
    """A problem at a key if it was written, else at its group."""
    problems.add(*group.setting(key), what, fix)


def _check_promotion(root: Node, run: RunSettings, problems: Problems) -> None:
    goal, best = run.promotion.goal, figures.of(run.promotion.metric).goal
    if goal and goal != best:
        what = f"{goal} of {run.promotion.metric} would promote the worst stream"
        _add(root.items["promotion"], "goal", what, f"write `goal: {best}`, or leave it out", problems)
    named = len(set(run.promotion.approvers))
    if named < len(run.promotion.approvers):
        what = "names somebody twice"
        _add(root.items["promotion"], "approvers", what, "name each approver once", problems)
    if named and run.promotion.approvals > named:
        what = f"{run.promotion.approvals} approvals are required, but {named} approvers are named"
        _add(root.items["promotion"], "approvals", what, f"write at most {named}", problems)


def _check_alerts(root: Node, run: RunSettings, problems: Problems) -> None:
    for number, alert in enumerate(run.alerts):
        if (alert.url is None) == (alert.command is None):
            what = "both `url` and `command`" if alert.url else "neither `url` nor `command`"
            _add(root, "alerts", f"alert {number + 1} has {what}", "an alert has one of them", problems)


def _check_feedback(root: Node, run: RunSettings, problems: Problems) -> None:
    """Rated answers are conversations; and who is trained with them is promoted by ratings, without a look at sealed rows."""
    for name, stream in run.streams.items() if run.feedback else ():
        known = kinds.method(stream.method).row_types
        if known is not None and "chatml" not in known:
            what = f"{name} has `method: {stream.method}`, which does not learn from conversations"
            _add(root, "feedback", what, "leave `feedback` out", problems)
        if len(stream.parts) > 1:
            what = f"{name} is a pair of models, and an answer is of one"
            _add(root, "feedback", what, "leave `feedback` out", problems)
        if stream.sealed_datasets:
            what = f"{name} has `sealed_datasets`, and what ratings promote is not examined on them"
            _add(root, "feedback", what, "leave one of them out", problems)


def _check_held_out(stream: Node, settings: StreamSettings, run: RunSettings, problems: Problems) -> None:
    if settings.val_set_size >= 1 and settings.val_set_size != int(settings.val_set_size):
        what = f"{settings.val_set_size} is neither a share below 1 nor a whole number of rows"
        _add(stream, "val_set_size", what, "write e.g. 0.05 or 100", problems)
    if settings.val_set_size == 0 and not settings.test_datasets:
        _add(
            stream,
            "val_set_size",
            "no row is held out for validation",
            "write e.g. 0.05, or name `test_datasets`",
            problems,
        )


def _check_metrics(stream: Node, settings: StreamSettings, run: RunSettings, problems: Problems) -> None:
    wanted = run.promotion.metric
    of_answers = figures.of(wanted).of == "answers"
    if of_answers and settings.eval_rows == 0:
        what = f"0 rows are answered, but `promotion.metric` is {wanted}"
        _add(stream, "eval_rows", what, "write e.g. 64, or `metric: eval_loss`", problems)
    if figures.of(wanted).of and wanted not in settings.metrics:
        what = f"{wanted} is not measured, but it is `promotion.metric`"
        _add(stream, "metrics", what, f"add {wanted}", problems)
    for metric in settings.metrics:
        if (package := figures.of(metric).package) and find_spec(package) is None:
            what = f"{metric} needs the package {package}"
            fix = "install it with `pip install 'toonswarm[judge]'`, or take it out"
            _add(stream, "metrics", what, fix, problems)
    if "json_schema" in settings.metrics and settings.json_schema is None:
        _add(stream, "metrics", "json_schema has no schema to match", "name a file with `json_schema:`", problems)


def _check_steps(stream: Node, settings: StreamSettings, problems: Problems) -> None:
    last = settings.max_steps
    if last is not None and settings.eval_steps is not None and settings.eval_steps > last:
        _add(
            stream,
            "eval_steps",
            f"step {settings.eval_steps} is never reached: `max_steps` is {last}",
            f"write at most {last}",
            problems,
        )
    if settings.eval_steps is not None and settings.evals_per_run is not None:
        what = "`eval_steps` says when already"
        _add(stream, "evals_per_run", what, "leave one of them out", problems)
    if last is not None and settings.logging_steps > last:
        _add(
            stream,
            "logging_steps",
            f"step {settings.logging_steps} is never reached: `max_steps` is {last}",
            f"write at most {last}",
            problems,
        )
    _check_schedule(stream, settings, problems)


def _check_schedule(stream: Node, settings: StreamSettings, problems: Problems) -> None:
    scheduler, warmup, last = settings.lr_scheduler, settings.warmup_steps, settings.max_steps
    for key in ("warmup_ratio", "warmup_steps"):
        if scheduler in WITHOUT_WARM_UP and key in stream.items and getattr(settings, key):
            what = f"`lr_scheduler: {scheduler}` has no warm-up"
            _add(stream, key, what, f"write `lr_scheduler: constant_with_warmup`, or `{key}: 0`", problems)
    if warmup is not None and last is not None and warmup >= last:
        what = f"the learning rate rises for {warmup} steps, but `max_steps` is {last}"
        _add(stream, "warmup_steps", what, f"write at most {last - 1}", problems)
    for keys, part in parts_of(stream, settings):
        if part.lr_scheduler == "rms_ratio" and "beta2" not in type(part).model_fields:
            what = f"rms_ratio follows `beta2`, which {part.optimizer} does not have"
            _add(keys, "lr_scheduler", what, "take an optimizer such as adamw or lion, or another schedule", problems)


def _check_stops(stream: Node, settings: StreamSettings, problems: Problems) -> None:
    for node, part in [(stream, settings), *parts_of(stream, settings)]:
        for stop in kinds.stops():
            if why := stop.refusal(part) or stop.idle(part):
                _add(node, why.key, why.what, why.fix, problems)
    for armed in kinds.stops_armed(settings):
        if why := armed.unreachable(settings, settings.max_steps):
            _add(stream, why.key, why.what, why.fix, problems)


def _check_controller(stream: Node, settings: StreamSettings, problems: Problems) -> None:
    for node, part in parts_of(stream, settings):
        if wrong := kinds.controller(part.controller).wrong(part):
            _add(node, *wrong, problems)


def _check_pairs(stream: Node, settings: StreamSettings, problems: Problems) -> None:
    wanted, node = kinds.method(settings.method).pairs, stream.items.get("datasets")
    for number, dataset in enumerate(settings.datasets):
        at = node.value[number] if node is not None and isinstance(node.value, list) else stream
        if dataset.rejected and dataset.type not in {"auto", "chatml", "prompt_completion", "toon"}:
            what, fix = f"`type: {dataset.type}` has no such column", "write `type: prompt_completion`, or chatml"
            _add(at, "rejected", what, fix, problems)
        elif wanted and not dataset.rejected:
            what = f"{settings.method} learns from a better and a worse answer, and this dataset has one"
            _add(at, "rejected", what, "name the column of the worse one", problems)
        elif dataset.rejected and not wanted:
            what = f"{settings.method} learns from the better answer alone"
            _add(at, "rejected", what, "write `method: dpo` or kto, or leave it out", problems)


def _check_row_types(stream: Node, settings: StreamSettings, problems: Problems) -> None:
    """Rows that the method does not learn from; of two models each has its own."""
    for node, part in parts_of(stream, settings):
        assert isinstance(part, StreamSettings)
        for key in DATASETS:
            written = node.items.get(key)
            for number, dataset in enumerate(getattr(part, key)):
                at = written.value[number] if written is not None and isinstance(written.value, list) else node
                _check_row_type(at, dataset.type, part.method, problems)


def _check_row_type(at: Node, row_type: str, method: str, problems: Problems) -> None:
    known = kinds.method(method).row_types
    if known is not None and row_type not in known:
        what = f"{method} learns from {' or '.join(sorted(known))} rows, and this data set is read as {row_type}"
        _add(at, "type", what, f"write `type: {min(known)}`, with its columns", problems)
    elif known is None and row_type == "labelled":
        what = f"{method} learns from words, and a label is none"
        _add(at, "type", what, "write `method: classify`, or `type: prompt_completion`", problems)


def _check_kinds(stream: Node, settings: StreamSettings, problems: Problems) -> None:
    chosen: list[tuple[Node, Part, str]] = [(stream, settings, "method"), (stream, settings, "controller")]
    for node, part in parts_of(stream, settings):
        chosen += [(node, part, "adapter"), (node, part, "optimizer")]
        _check_classes(node, part, problems)
    for node, part, key in chosen:
        name = getattr(part, key)
        kind = kinds.installed(key)[name]
        if why := kind.refusal(part):
            _add(node, why.key, why.what, why.fix, problems)
        if kind.package and find_spec(kind.package) is None:
            fix = f"install it with `pip install 'toonswarm[{kind.extra}]'`, or take another {key}"
            _add(node, key, f"{name} needs the package {kind.package}", fix, problems)


def _check_precision(stream: Node, settings: StreamSettings, problems: Problems) -> None:
    for node, part in parts_of(stream, settings):
        if part.fp16 and part.bf16 is True:
            _add(node, "bf16", "`fp16: true` says otherwise", "leave one of them out", problems)


def _check_classes(node: Node, part: Part, problems: Problems) -> None:
    """What is to be trained away from would be trained towards by an adapter that knows no classes."""
    if kinds.adapter(part.adapter).reads_classes:
        return
    for key in DATASETS:
        if any(dataset.control_class != 1 or dataset.prefix_class for dataset in getattr(part, key)):
            _add(node, key, f"{part.adapter} adapters know no control_class", "write `adapter: control`", problems)


def _check_leaks(stream: Node, settings: StreamSettings, problems: Problems) -> None:
    """Rows that are both trained on and held out would make every score meaningless."""
    if settings.allow_overlap:
        return
    trained = {file for dataset in settings.datasets for file in _sources(dataset)}
    for key in ("test_datasets", "val_datasets"):
        for number, dataset in enumerate(getattr(settings, key)):
            if both := sorted(trained.intersection(_sources(dataset))):
                entries = stream.items[key].value
                assert isinstance(entries, list)
                fix = "hold out other rows, or leave `test_datasets` out and set `val_set_size`; or set `allow_overlap: true`"
                _add(entries[number], "path", f"{both[0]} is trained on too", fix, problems)
    if settings.val_datasets and not settings.chooses_steps:
        what = "no step is chosen by it"
        _add(
            stream,
            "val_datasets",
            what,
            "set `eval_steps` or `evals_per_run` with `save: best`, or leave it out",
            problems,
        )


def _check_data(stream: Node, settings: StreamSettings, problems: Problems) -> None:
    """Keys of datasets that would change nothing."""
    for key in ("datasets", "test_datasets", "val_datasets"):
        entries = stream.items[key].value if key in stream.items else []
        assert isinstance(entries, list)
        for entry, dataset in zip(entries, getattr(settings, key), strict=True):
            for setting, what, fix in _idle(dataset, is_trained_on=key == "datasets"):
                _add(entry, setting, what, fix, problems)
    _check_documents(stream, settings, problems)
    _check_batches(stream, settings, problems)
    if settings.ablate_examples and any(dataset.weight for dataset in settings.datasets):
        what = "it would take rows out of a mixture by `weight`"
        _add(stream, "ablate_examples", what, "set `limit` with `shuffle` of each dataset instead", problems)


OF_DOCUMENTS = ("sequence_prefix", "mask_tokens", "max_sequences", "drop_tails", "mix_datasets", "isolate_documents")


def _check_documents(stream: Node, settings: StreamSettings, problems: Problems) -> None:
    for keys, part in parts_of(stream, settings):
        for key in () if part.has_documents else OF_DOCUMENTS:
            if getattr(part, key) not in (None, False):
                what, fix = "no dataset has documents", "write `type: document` in `datasets`, or leave it out"
                _add(keys, key, what, fix, problems)
        if part.mix_datasets and part.isolate_documents:
            what = "a sequence holds one document"
            _add(keys, "mix_datasets", what, "leave one of them out", problems)


def _check_batches(stream: Node, settings: StreamSettings, problems: Problems) -> None:
    """How a micro-batch is made is said once."""
    tokens = settings.batch_size_tokens
    if settings.packing != "none" and tokens:
        what = "`packing` makes micro-batches of `micro_batch_size` full sequences"
        _add(stream, "batch_size_tokens", what, "leave one of them out", problems)
    if settings.packing != "none" and settings.group_by_length:
        _add(stream, "group_by_length", "packed sequences are of like length", "leave one of them out", problems)
    if tokens and tokens < settings.sequence_len:
        what = f"{tokens} tokens do not hold one row of `sequence_len: {settings.sequence_len}`"
        _add(stream, "batch_size_tokens", what, f"write at least {settings.sequence_len}", problems)


def _idle(dataset: Dataset, *, is_trained_on: bool) -> Iterator[tuple[str, str, str]]:
    if dataset.prompt_template and dataset.type in {"chatml", *PLAIN}:
        what = f"rows of `type: {dataset.type}` have no prompt that a template could write"
        yield "prompt_template", what, "write `type: prompt_completion`, or leave it out"
    if dataset.no_input_template and (not dataset.prompt_template or dataset.prompt_template in BUILT_IN):
        yield "no_input_template", "it goes with a `prompt_template` of your own", "write one, or leave it out"
    if dataset.system_prompt and dataset.type in PLAIN:
        yield "system_prompt", "plain text has no system message", "leave it out"
    for key in ("document_prefix", "document_suffix", "max_tokens"):
        if getattr(dataset, key) is not None and dataset.type != "document":
            yield key, "of documents alone", "write `type: document`, or leave it out"
    if dataset.max_tokens and not is_trained_on:
        yield "max_tokens", "held-out documents are judged whole", "leave it out, or set `limit`"
    if dataset.weight and not is_trained_on:
        yield "weight", "held-out rows are not mixed", "leave it out"


def _sources(dataset: Dataset) -> list[str]:
    files = files_of(dataset.path)
    return [str(file) for file in files] if files else [f"{dataset.path} ({dataset.split})"]
