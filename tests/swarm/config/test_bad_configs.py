"""Every mistake as a user makes it, with the whole output that is told; {proj} stands for the config's folder."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import pytest

from swarm.config import load
from swarm.errors import UserErrors

DEFAULTS = """\
name: quick
defaults:
  base_model: tiny-toon
  datasets: [{path: data/train.jsonl}]
"""
ONE = DEFAULTS + "streams:\n  one: {lora_r: 4}\n"


@dataclass(frozen=True)
class Bad:
    what: str
    text: str
    told: str
    overrides: tuple[str, ...] = ()
    name: str = "my.yaml"


CASES = [
    Bad(
        "a misspelt setting",
        DEFAULTS
        + """\
streams:
  wide:
    learnig_rate: 1
""",
        """
my.yaml:7: streams.wide.learnig_rate: unknown setting; did you mean `learning_rate`?
1 problem; nothing was started
""",
    ),
    Bad(
        "settings of other tools",
        DEFAULTS
        + """\
  per_device_train_batch_size: 4
  load_in_4bit: true
  max_seq_length: 9
  num_train_epochs: 1
  num_warmup_steps: 3
streams:
  one: {lora_rank: 3, rank: 2, optim: x}
output_dir: x
""",
        """
my.yaml:5: defaults.per_device_train_batch_size: unknown setting; here it is `micro_batch_size`
my.yaml:6: defaults.load_in_4bit: unknown setting; here it is `adapter: qlora`
my.yaml:7: defaults.max_seq_length: unknown setting; here it is `sequence_len`
my.yaml:8: defaults.num_train_epochs: unknown setting; here it is `num_epochs`
my.yaml:9: defaults.num_warmup_steps: unknown setting; here it is `warmup_steps`
my.yaml:11: streams.one.lora_rank: unknown setting; here it is `lora_r`
my.yaml:11: streams.one.rank: unknown setting; here it is `lora_r`
my.yaml:11: streams.one.optim: unknown setting; here it is `optimizer`
my.yaml:12: output_dir: unknown setting; here it is `runs_dir`
9 problems; nothing was started
""",
    ),
    Bad(
        "micro-batches that are made in two ways, or hold no row",
        DEFAULTS
        + """\
  sequence_len: 64
streams:
  small: {batch_size_tokens: 63}
  both: {batch_size_tokens: 64, packing: bfd, group_by_length: true}
""",
        """
my.yaml:7: streams.small.batch_size_tokens: 63 tokens do not hold one row of `sequence_len: 64`; write at least 64
my.yaml:8: streams.both.batch_size_tokens: `packing` makes micro-batches of `micro_batch_size` full sequences; leave one of them out
my.yaml:8: streams.both.group_by_length: packed sequences are of like length; leave one of them out
3 problems; nothing was started
""",
    ),
    Bad(
        "settings in the wrong place",
        DEFAULTS
        + """\
  gpus: all
  runs_dir: x
  path: x
streams: {one: {metric: x}}
learning_rate: 1
placement: {retries: 1}
batch_size: 2
""",
        """
my.yaml:5: defaults.gpus: unknown setting; write it below `placement:`
my.yaml:6: defaults.runs_dir: unknown setting; write it at the top of the file, beside `streams:`
my.yaml:7: defaults.path: unknown setting; write it in an entry of `datasets:`
my.yaml:8: streams.one.metric: unknown setting; write it below `promotion:`
my.yaml:9: learning_rate: unknown setting; write it below `defaults:` or a stream
my.yaml:10: placement.retries: unknown setting; write it at the top of the file, beside `streams:`
my.yaml:11: batch_size: unknown setting; here it is `micro_batch_size`, below `defaults:` or a stream
7 problems; nothing was started
""",
    ),
    Bad(
        "a dataset's keys",
        """\
name: q
defaults:
  base_model: tiny-toon
  datasets:
    - path: data/train.jsonl
      type: sharegpt
      field_messages: x
    - typ: text
streams: {one: }
""",
        """
my.yaml:6: defaults.datasets.0.type: 'sharegpt' is not one of auto, chatml, alpaca, prompt_completion, text, document, toon, labelled; write `type: chatml`, with `messages: conversations`
my.yaml:7: defaults.datasets.0.field_messages: unknown setting; here it is `messages`
my.yaml:8: defaults.datasets.1.typ: unknown setting; did you mean `type`?
my.yaml:8: defaults.datasets.1.path: is missing; name a file, a pattern such as data/*.jsonl, or a dataset of the hub
4 problems; nothing was started
""",
    ),
    Bad(
        "a setting nobody knows",
        DEFAULTS + "  flux_capacitor: 1.21\nstreams: {one: }\n",
        """
my.yaml:5: defaults.flux_capacitor: unknown setting; remove it; docs/settings.md lists all settings
1 problem; nothing was started
""",
    ),
    Bad(
        "values of the wrong type",
        DEFAULTS
        + """\
  lora_r: true
  seed: '8'
  use_dora: yes
  learning_rate: abc
  sequence_len: 512.5
  base_model: 5
streams:
  one: {micro_batch_size: , datasets: data/train.jsonl, lora_target_modules: {a: 1}, bf16: on}
""",
        """
my.yaml:5: defaults.lora_r: expected a whole number of at least 1, got true; the default is 8
my.yaml:6: defaults.seed: expected a whole number of at least 0 and below 4294967296, got '8'; write it without quotes
my.yaml:7: defaults.use_dora: expected true or false, got 'yes'; write true
my.yaml:8: defaults.learning_rate: expected a number above 0, got 'abc'; the default is 0.0002
my.yaml:9: defaults.sequence_len: expected a whole number of at least 8, got 512.5; the default is 512
my.yaml:10: defaults.base_model: written twice, first on line 3; remove one of them
my.yaml:12: streams.one.datasets: expected a list of at least one dataset, got 'data/train.jsonl'; write `datasets: [{path: ..., type: ...}]`
my.yaml:12: streams.one.micro_batch_size: expected a whole number of at least 1, got nothing; give it a value, or remove the line
my.yaml:12: streams.one.bf16: expected auto, true or false, got 'on'; write true
my.yaml:12: streams.one.lora_target_modules: expected text or a list of texts, got a group of settings; the default is all-linear
10 problems; nothing was started
""",
    ),
    Bad(
        "texts that a pattern decides",
        DEFAULTS
        + """\
streams: {one: {}}
roles: {validate: [someone], judge: [worker], train: worker}
listen: tcp://0.0.0.0:5555
""",
        """
my.yaml:6: roles.validate.0: expected worker or agent:NAME, got 'someone'; correct it, or leave it out
my.yaml:6: roles.judge: judge is no role; take prepare, train, validate or evaluate
my.yaml:6: roles.train: expected a list of worker or agent:NAME, got 'worker'; correct it, or leave it out
my.yaml:7: listen: expected tcp://ADDRESS:PORT (an address that others can connect to, a port up to 65534), got 'tcp://0.0.0.0:5555'; correct it, or leave it out
4 problems; nothing was started
""",
    ),
    Bad(
        "values out of range",
        DEFAULTS
        + """\
  lora_r: 0
  lora_dropout: 1
  learning_rate: 0
  sequence_len: 4
  max_steps: 0
  lora_alpha: .inf
  weight_decay: .nan
streams: {one: {datasets: []}}
lease_seconds: 1
""",
        """
my.yaml:5: defaults.lora_r: expected a whole number of at least 1, got 0; the default is 8
my.yaml:6: defaults.lora_dropout: expected a number of at least 0 and below 1, got 1; the default is 0
my.yaml:7: defaults.learning_rate: expected a number above 0, got 0; the default is 0.0002
my.yaml:8: defaults.sequence_len: expected a whole number of at least 8, got 4; the default is 512
my.yaml:9: defaults.max_steps: expected a whole number of at least 1, got 0; correct it, or leave it out
my.yaml:10: defaults.lora_alpha: expected a number above 0, got .inf; the default is 16
my.yaml:11: defaults.weight_decay: expected a number of at least 0, got .nan; the default is 0
my.yaml:12: streams.one.datasets: expected a list of at least one dataset, got []; write `datasets: [{path: ..., type: ...}]`
my.yaml:13: lease_seconds: expected a number of at least 10, got 1; the default is 60
9 problems; nothing was started
""",
    ),
    Bad(
        "choices that are none",
        DEFAULTS
        + """\
  adapter: dora
  optimizer: adamw_bnb_8bit
  lr_scheduler: cosin
  method: ppo
  on_bad_row: ignore
streams: {one: }
promotion: {metric: recall, must_beat: bas}
""",
        """
my.yaml:5: defaults.adapter: 'dora' is not one of control, full, lora, qcontrol, qlora; write `adapter: lora` with `use_dora: true`
my.yaml:6: defaults.optimizer: 'adamw_bnb_8bit' is not one of adafactor, adam, adam_kahan, adamw, adamw_8bit, adamw_kahan, adamw_torch, duo, lion, lion_32bit, lion_8bit, lion_kahan, muon, paged_adamw, paged_adamw_8bit, paged_lion, paged_lion_8bit, sgd; write `optimizer: adamw_8bit`
my.yaml:7: defaults.lr_scheduler: 'cosin' is not one of linear, cosine, constant, constant_with_warmup, polynomial, rms_ratio; did you mean `cosine`?
my.yaml:8: defaults.method: 'ppo' is not one of classify, contrastive, distill, dpo, duo, kto, mlm, orpo, sft; take one of them
my.yaml:9: defaults.on_bad_row: 'ignore' is not one of fail, skip; take one of them
my.yaml:11: promotion.metric: 'recall' is not one of eval_loss, perplexity, exact_match, exact_match_normalised, ended, accuracy, f1, positive_f1, rouge_1, rouge_2, rouge_l, bleu, chrf, json_valid, json_schema, toon_valid, banned; take one of them
my.yaml:11: promotion.must_beat: 'bas' is not one of base, nothing; did you mean `base`?
7 problems; nothing was started
""",
    ),
    Bad(
        "a judge that is no judge",
        DEFAULTS
        + """\
  judge: {endpoint: "localhost:8000", modell: x}
streams: {one: {seeds: 0, sweep_lr: [1e-3, -1], sealed_datasets: [{path: nowhere.jsonl}], val_datasets: [{path: data/dev.jsonl}]}}
""",
        """
my.yaml:5: defaults.judge.modell: unknown setting; did you mean `model`?
my.yaml:5: defaults.judge.endpoint: expected http(s)://HOST[:PORT]/v1, got 'localhost:8000'; correct it
my.yaml:5: defaults.judge.model: is missing; write it
my.yaml:6: streams.one.sealed_datasets.0.path: no file matches nowhere.jsonl in {proj}; the folder holds no data files
my.yaml:6: streams.one.seeds: expected a whole number of at least 1 and at most 64, got 0; correct it, or leave it out
my.yaml:6: streams.one.sweep_lr.1: expected a number above 0, got -1; correct it, or leave it out
6 problems; nothing was started
""",
    ),
    Bad(
        "words where groups belong",
        DEFAULTS
        + """\
streams: {one: [1, 2]}
placement: all
promotion: [x]
""",
        """
my.yaml:5: streams.one: expected settings, got [1, 2]; write `key: value` lines below it
my.yaml:6: placement: expected settings, got 'all'; write `key: value` lines below it
my.yaml:7: promotion: expected settings, got ['x']; write `key: value` lines below it
3 problems; nothing was started
""",
    ),
    Bad(
        "placement",
        ONE + "placement: {gpus: [0, -1], streams_per_gpu: 0, cpu_streams: many}\n",
        """
my.yaml:7: placement.gpus: expected all, none or a list of whole numbers of at least 0, got [0, -1]; the default is all
my.yaml:7: placement.streams_per_gpu: expected auto or a whole number of at least 1, got 0; the default is auto
my.yaml:7: placement.cpu_streams: expected auto or a whole number of at least 1, got 'many'; the default is auto
3 problems; nothing was started
""",
    ),
    Bad(
        "stream names that are none",
        DEFAULTS + "streams:\n  Wide One: {}\n  -x: {}\n  '': {}\n  " + "a" * 65 + ": {}\n",
        """
my.yaml:6: streams.Wide One: Wide One is no name: small letters, digits, `.`, `_` and `-`, beginning with a letter or digit, at most 64; write e.g. `wide-one`
my.yaml:7: streams.-x: -x is no name: small letters, digits, `.`, `_` and `-`, beginning with a letter or digit, at most 64; write e.g. `x`
my.yaml:8: streams.'': '' is no name: small letters, digits, `.`, `_` and `-`, beginning with a letter or digit, at most 64; write e.g. `first`
my.yaml:9: streams.aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa is no name: small letters, digits, `.`, `_` and `-`, beginning with a letter or digit, at most 64; write e.g. `aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa`
4 problems; nothing was started
""",
    ),
    Bad(
        "a run name that is none",
        """\
name: My Run
defaults:
  base_model: tiny-toon
  datasets: [{path: data/train.jsonl}]
streams: {one: }
""",
        """
my.yaml:1: name: My Run is no name: small letters, digits, `.`, `_` and `-`, beginning with a letter or digit, at most 64; write e.g. `my-run`
1 problem; nothing was started
""",
    ),
    Bad(
        "what every stream lacks is told once",
        """\
streams:
  one:
  two: {lora_r: 3}
""",
        """
my.yaml:1: name: is missing; write e.g. `name: my`
my.yaml:1: defaults.base_model: is missing; write e.g. `base_model: tiny-toon`, a folder or a name on the hub
my.yaml:1: defaults.datasets: is missing; write e.g. `datasets: [{path: data/train.jsonl, type: chatml}]`
3 problems; nothing was started
""",
    ),
    Bad(
        "what one stream lacks",
        """\
name: q
streams:
  one: {datasets: [{path: data/train.jsonl}]}
  two: {base_model: tiny-toon, datasets: [{path: data/train.jsonl}]}
""",
        """
my.yaml:3: streams.one.base_model: is missing; write e.g. `base_model: tiny-toon`, a folder or a name on the hub
1 problem; nothing was started
""",
    ),
    Bad(
        "classes of text for adapters that know none",
        """
name: quick
defaults:
  base_model: tiny-toon
  datasets: [{path: data/train.jsonl}, {path: data/train.jsonl, control_class: -1}]
streams:
  low: {lora_r: 4}
  whole: {adapter: full}
  apart: {adapter: control}
""".lstrip(),
        """
my.yaml:4: defaults.datasets: lora adapters know no control_class; write `adapter: control`
my.yaml:4: defaults.datasets: full adapters know no control_class; write `adapter: control`
2 problems; nothing was started
""",
    ),
    Bad(
        "no streams",
        DEFAULTS,
        """
my.yaml:1: streams: no stream; write `streams:` with one name per fine-tune below it, e.g. `narrow: {lora_r: 8}`; a config of another tool: `swarm init NEW.yaml --from FILE`
1 problem; nothing was started
""",
    ),
    Bad(
        "streams left empty",
        DEFAULTS + "streams:\n",
        """
my.yaml:5: streams: no stream; write `streams:` with one name per fine-tune below it, e.g. `narrow: {lora_r: 8}`
1 problem; nothing was started
""",
    ),
    Bad(
        "streams as a list",
        DEFAULTS + "streams: [one, two]\n",
        """
my.yaml:5: streams: expected streams by name, got ['one', 'two']; write `streams:` with one name per fine-tune below it, e.g. `narrow: {lora_r: 8}`
1 problem; nothing was started
""",
    ),
    Bad(
        "streams as a word",
        DEFAULTS + "streams: one\n",
        """
my.yaml:5: streams: expected streams by name, got 'one'; write `streams:` with one name per fine-tune below it, e.g. `narrow: {lora_r: 8}`
1 problem; nothing was started
""",
    ),
    Bad(
        "defaults as a word",
        """\
name: q
defaults: none
streams: {one: {base_model: tiny-toon, datasets: [{path: data/train.jsonl}]}}
""",
        """
my.yaml:2: defaults: is no group of settings; write `key: value` lines below `defaults:`
1 problem; nothing was started
""",
    ),
    Bad(
        "keys written twice",
        DEFAULTS
        + """\
  seed: 1
  lora_r: 3
  seed: 2
streams: {one: , one: }
""",
        """
my.yaml:7: defaults.seed: written twice, first on line 5; remove one of them
my.yaml:8: streams.one: written twice, first on line 8; remove one of them
2 problems; nothing was started
""",
    ),
    Bad(
        "tags",
        DEFAULTS
        + """\
  seed: !!python/object/apply:os.system [x]
  lora_r: !int 3
  lora_alpha: !!float x
streams: {one: }
""",
        """
my.yaml:5: defaults.seed: the tag tag:yaml.org,2002:python/object/apply:os.system is not understood; remove it
my.yaml:6: defaults.lora_r: the tag !int is not understood; remove it
my.yaml:7: defaults.lora_alpha: 'x' cannot be read as float; correct it
3 problems; nothing was started
""",
    ),
    Bad(
        "an alias that contains itself",
        DEFAULTS + "streams: {one: &a {datasets: [*a]}}\n",
        """
my.yaml:5: an alias that contains itself; write the value out
1 problem; nothing was started
""",
    ),
    Bad(
        "a billion laughs",
        """\
name: q
a: &a [x,x,x,x,x,x,x,x,x,x]
b: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a,*a]
c: &c [*b,*b,*b,*b,*b,*b,*b,*b,*b,*b]
d: &d [*c,*c,*c,*c,*c,*c,*c,*c,*c,*c]
e: [*d,*d,*d,*d,*d]
""",
        """
my.yaml:2: aliases expand to more than 20,000 values; write the values out
1 problem; nothing was started
""",
    ),
    Bad(
        "brackets in brackets",
        "name: " + "[" * 30 + "]" * 30,
        """
my.yaml:1: nested deeper than 24; write it flatter
1 problem; nothing was started
""",
    ),
    Bad(
        "brackets beyond all stacks",
        "name: " + "[" * 700 + "]" * 700,
        """
my.yaml:1: nested too deeply; write it flatter
1 problem; nothing was started
""",
    ),
    Bad(
        "a tab",
        """\
name: q
streams:
	one:
""",
        r"""
my.yaml:3: not YAML: found character '\t' that cannot start any token; indent with spaces, not with tabs
1 problem; nothing was started
""",
    ),
    Bad(
        "a stray colon",
        "name: q\nx: y: z\n",
        """
my.yaml:2: not YAML: mapping values are not allowed here; check colons, quotes and indentation here and on the line before
1 problem; nothing was started
""",
    ),
    Bad(
        "an open bracket",
        "name: [q\nstreams: {one: }\n",
        """
my.yaml:2: not YAML: expected ',' or ']', but got ':'; check colons, quotes and indentation here and on the line before
1 problem; nothing was started
""",
    ),
    Bad(
        "a star without quotes",
        """\
name: q
defaults:
  datasets: [{path: *.jsonl}]
""",
        """
my.yaml:3: not YAML: expected alphabetic or numeric character, but found '.'; a value that begins with * needs quotes
1 problem; nothing was started
""",
    ),
    Bad(
        "two documents",
        """\
name: q
---
name: r
""",
        """
my.yaml:2: not YAML: but found another document; check colons, quotes and indentation here and on the line before
1 problem; nothing was started
""",
    ),
    Bad(
        "a control character",
        "name: q\nseed: \x01\n",
        """
my.yaml:2: the character U+0001 may not stand in YAML; remove it, or write it as an escape in double quotes
1 problem; nothing was started
""",
    ),
    Bad(
        "half a character",
        'name: q\nseed: "\\ud83d"\n',
        """
my.yaml:2: not YAML: half a surrogate pair; write the character itself
1 problem; nothing was started
""",
    ),
    Bad(
        "an empty file",
        "",
        """
my.yaml:1: is empty; `swarm init` writes a config to begin with
1 problem; nothing was started
""",
    ),
    Bad(
        "a list",
        "- a\n- b\n",
        """
my.yaml:1: holds no `key: value` settings; `swarm init` writes a config to begin with
1 problem; nothing was started
""",
    ),
    Bad(
        "a word",
        "hello\n",
        """
my.yaml:1: holds no `key: value` settings; `swarm init` writes a config to begin with
1 problem; nothing was started
""",
    ),
    Bad(
        "a merge of no group",
        DEFAULTS + "streams: {one: {<<: 3}}\n",
        """
my.yaml:5: streams.one.<<: merges what is no group; name the anchor of a group: `<<: *anchor`
1 problem; nothing was started
""",
    ),
    Bad(
        "a list as a key",
        DEFAULTS + "streams: {one: {[a]: 3}}\n",
        """
my.yaml:5: streams.one: a key that is no text; write `key: value`
1 problem; nothing was started
""",
    ),
    Bad(
        "a pattern without files is told once for all streams",
        DEFAULTS.replace("train.jsonl", "x*.csv") + "streams: {one: , two: }\n",
        """
my.yaml:4: defaults.datasets.0.path: no file matches data/x*.csv in {proj}; the folder holds 2 .json files, 2 .jsonl files
1 problem; nothing was started
""",
    ),
    Bad(
        "a misspelt file",
        DEFAULTS.replace("train", "trian") + "streams: {one: }\n",
        """
my.yaml:4: defaults.datasets.0.path: no file matches data/trian.jsonl in {proj}; did you mean train.jsonl?
1 problem; nothing was started
""",
    ),
    Bad(
        "a folder that is not there",
        DEFAULTS.replace("data/", "dat/") + "streams: {one: }\n",
        """
my.yaml:4: defaults.datasets.0.path: no file matches dat/train.jsonl in {proj}; {proj} holds no data files
1 problem; nothing was started
""",
    ),
    Bad(
        "a folder instead of files",
        DEFAULTS.replace("data/train.jsonl", "data/") + "streams: {one: }\n",
        """
my.yaml:4: defaults.datasets.0.path: data/ is a folder; write data/*.jsonl, or another pattern of files
1 problem; nothing was started
""",
    ),
    Bad(
        "a file that holds no rows",
        DEFAULTS.replace("data/train.jsonl", "my.yaml") + "streams: {one: }\n",
        """
my.yaml:4: defaults.datasets.0.path: my.yaml is no .jsonl, .ndjson, .json, .csv, .tsv, .parquet, .arrow, .toon, .txt file; convert it, or name other files
1 problem; nothing was started
""",
    ),
    Bad(
        "a path with a NUL",
        DEFAULTS.replace("data/train.jsonl", '"a\\0b"') + "streams: {one: }\n",
        r"""
my.yaml:4: defaults.datasets.0.path: no file matches 'a\x00b' in {proj}; the folder holds no data files
1 problem; nothing was started
""",
    ),
    Bad(
        "a path without end",
        DEFAULTS.replace("data/train.jsonl", "x" * 5000) + "streams: {one: }\n",
        """
my.yaml:4: defaults.datasets.0.path: no file matches xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx... in {proj}; the folder holds no data files
1 problem; nothing was started
""",
    ),
    Bad(
        "bases that are not there",
        DEFAULTS.replace("tiny-toon", "./models/x")
        + "streams: {one: {base_model: a/b/c}, two: {base_model: data}, three: {base_model: ''}}\n",
        """
my.yaml:5: streams.one.base_model: there is no folder a/b/c in {proj}; correct it, or write `tiny-toon` or a name on the hub
my.yaml:5: streams.two.base_model: data holds no config.json; name the folder of a whole model, not of an adapter
my.yaml:5: streams.three.base_model: there is no folder '' in {proj}; correct it, or write `tiny-toon` or a name on the hub
3 problems; nothing was started
""",
    ),
    Bad(
        "absolute paths that lead nowhere",
        DEFAULTS.replace("data/train.jsonl", "/usr/no-such/x.jsonl")
        + "streams: {one: {base_model: /etc/passwd}, two: {base_model: ./my.yaml}, three: {base_model: /no-such}}\n",
        """
my.yaml:4: defaults.datasets.0.path: no file matches /usr/no-such/x.jsonl; /usr holds no data files
my.yaml:5: streams.one.base_model: /etc/passwd is a file; name the folder of a whole model, or a name on the hub
my.yaml:5: streams.two.base_model: ./my.yaml is a file; name the folder of a whole model, or a name on the hub
my.yaml:5: streams.three.base_model: there is no folder /no-such; correct it, or write `tiny-toon` or a name on the hub
4 problems; nothing was started
""",
    ),
    Bad(
        "a base with a name longer than any",
        DEFAULTS.replace("tiny-toon", "x" * 300) + "streams: {one: }\n",
        """
my.yaml:3: defaults.base_model: there is no folder xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx... in {proj}; correct it, or write `tiny-toon` or a name on the hub
1 problem; nothing was started
""",
    ),
    Bad(
        "settings that cannot hold together",
        DEFAULTS
        + """\
streams:
  one: {max_steps: 10, eval_steps: 20, logging_steps: 11}
  two: {val_set_size: 0}
  three: {val_set_size: 1.5, eval_rows: 0, metrics: [ended, json_schema]}
  four: {lr_scheduler: constant, warmup_ratio: 0.1}
  five: {test_datasets: [{path: 'data/*.jsonl'}]}
  six: {engine: trl, exact: true}
  seven: {max_steps: 10, warmup_steps: 10}
  eight: {lr_scheduler: rms_ratio, warmup_steps: 1, optimizer: sgd}
  nine: {max_steps: 60, logging_steps: 5, plateau_patience: 15}
  ten: {max_steps: 60, plateau_patience: 5, plateau_min_steps: 100}
  eleven: {max_steps: 60, early_stopping_patience: 5}
  twelve: {max_steps: 60, eval_steps: 20, early_stopping_patience: 2}
  thirteen: {max_steps: 10, micro_batch_size: 2, sequence_len: 64, max_tokens: 1280}
  fourteen: {engine: trl, kl_lambda: 0.1}
  fifteen: {loss: asft, kl_lambda: 0}
  sixteen: {kl_tau: 2}
  seventeen: {lora_weight_dtype: bfloat16, weight_decay: 0.1}
  eighteen: {lora_target_mode: attn, lora_target_modules: q_proj}
  nineteen: {method: dpo}
  twenty: {datasets: [{path: data/train.jsonl, rejected: worse}]}
  twenty-one: {method: kto, micro_batch_size: 1, datasets: [{path: data/train.jsonl, type: text, rejected: worse}]}
  twenty-two: {init_lora_weights: pissa, rank_pattern: {q_proj: 4}, engine: trl}
promotion: {metric: exact_match, goal: min}
""",
        """
my.yaml:4: defaults.datasets.0.rejected: dpo learns from a better and a worse answer, and this dataset has one; name the column of the worse one
my.yaml:6: streams.one.eval_steps: step 20 is never reached: `max_steps` is 10; write at most 10
my.yaml:6: streams.one.logging_steps: step 11 is never reached: `max_steps` is 10; write at most 10
my.yaml:7: streams.two.val_set_size: no row is held out for validation; write e.g. 0.05, or name `test_datasets`
my.yaml:8: streams.three.val_set_size: 1.5 is neither a share below 1 nor a whole number of rows; write e.g. 0.05 or 100
my.yaml:8: streams.three.eval_rows: 0 rows are answered, but `promotion.metric` is exact_match; write e.g. 64, or `metric: eval_loss`
my.yaml:8: streams.three.metrics: exact_match is not measured, but it is `promotion.metric`; add exact_match
my.yaml:8: streams.three.metrics: json_schema has no schema to match; name a file with `json_schema:`
my.yaml:9: streams.four.warmup_ratio: `lr_scheduler: constant` has no warm-up; write `lr_scheduler: constant_with_warmup`, or `warmup_ratio: 0`
my.yaml:10: streams.five.test_datasets.0.path: {proj}/data/train.jsonl is trained on too; hold out other rows, or leave `test_datasets` out and set `val_set_size`; or set `allow_overlap: true`
my.yaml:11: streams.six.exact: it is for the shared engine, and sft + lora is trained by trl, without company; leave it out, or write `engine: shared`
my.yaml:12: streams.seven.warmup_steps: the learning rate rises for 10 steps, but `max_steps` is 10; write at most 9
my.yaml:13: streams.eight.warmup_steps: `lr_scheduler: rms_ratio` has no warm-up; write `lr_scheduler: constant_with_warmup`, or `warmup_steps: 0`
my.yaml:13: streams.eight.lr_scheduler: rms_ratio follows `beta2`, which sgd does not have; take an optimizer such as adamw or lion, or another schedule
my.yaml:14: streams.nine.plateau_patience: it can end nothing before step 16 x 5 = 80 (16 logged steps), and the training has 60; write at most 10, or lower `logging_steps`
my.yaml:15: streams.ten.plateau_min_steps: it never ends before step 100, and the training has 60; write less than 60, or leave plateau_patience out
my.yaml:16: streams.eleven.early_stopping_patience: nothing measures the held-out loss on the way; set `eval_steps` or `evals_per_run`
my.yaml:17: streams.twelve.early_stopping_patience: it can end nothing before step 3 x 20 = 60 (3 evaluations), and the training has 60; write at most 1, or lower `eval_steps`
my.yaml:18: streams.thirteen.max_tokens: 10 steps x 128 tokens are 1280 at most, which is no more than 1280; write less than 1280, or leave it out
my.yaml:19: streams.fourteen.engine: trl cannot train sft + lora with kl_lambda; write shared, or leave it out
my.yaml:20: streams.fifteen.kl_lambda: asft without its KL term is dft; write `loss: dft`, or a number above 0
my.yaml:21: streams.sixteen.kl_tau: there is no KL term; set `kl_lambda`, or leave it out
my.yaml:22: streams.seventeen.weight_decay: a decay is below what a weight in bfloat16 is rounded to: it would do nothing; write 0, or `lora_weight_dtype: float32`
my.yaml:23: streams.eighteen.lora_target_mode: lora_target_modules names layers too; leave one of them out
my.yaml:25: streams.twenty.datasets.0.rejected: sft learns from the better answer alone; write `method: dpo` or kto, or leave it out
my.yaml:26: streams.twenty-one.micro_batch_size: KTO estimates its reference point from the other rows of a forward pass; write at least 2
my.yaml:26: streams.twenty-one.datasets.0.rejected: `type: text` has no such column; write `type: prompt_completion`, or chatml
my.yaml:27: streams.twenty-two.rank_pattern: with pissa all layers have one rank and scale; leave it out
my.yaml:27: streams.twenty-two.engine: trl cannot train sft + lora with init_lora_weights; write shared, or leave it out
my.yaml:28: promotion.goal: min of exact_match would promote the worst stream; write `goal: max`, or leave it out
30 problems; nothing was started
""",
    ),
    Bad(
        "overrides",
        ONE,
        """
command line: 'lora_r' is no KEY.PATH=VALUE; write it like streams.wide.lora_r=64 or datasets.0.path=data.jsonl
command line: '=3' is no KEY.PATH=VALUE; write it like streams.wide.lora_r=64 or datasets.0.path=data.jsonl
command line: '.x=1' is no KEY.PATH=VALUE; write it like streams.wide.lora_r=64 or datasets.0.path=data.jsonl
command line: streams.on.lora_r: there is no stream `on`; did you mean `streams.one`?
command line: streams.zzzzz.lora_r: there is no stream `zzzzz`; the config has one
command line: lora_r.x: there is nothing below `lora_r` to set `x` in; set `lora_r` itself
command line: datasets.7.path: `7` is no place in a list of 1; count from 0 to 1
command line: datasets.path: `path` is no place in a list of 1; count from 0 to 1
command line: learnig_rate: unknown setting; did you mean `learning_rate`?
command line: lora_r: expected a whole number of at least 1, got '8x'; the default is 8
command line: datasets.0.path: no file matches none.jsonl in {proj}; the folder holds no data files
command line: placement.gpu: unknown setting; did you mean `gpus`?
command line: defaults.seed: expected a whole number of at least 0 and below 4294967296, got 'x'; the default is 0
command line: lora_target_modules: '[a' cannot be read (not YAML: expected ',' or ']', but got '<stream end>'); quote the whole KEY.PATH=VALUE for the shell
command line: name: expected text, got nothing; give it a value, or remove the line
15 problems; nothing was started
""",
        overrides=(
            "lora_r",
            "=3",
            ".x=1",
            "streams.on.lora_r=3",
            "streams.zzzzz.lora_r=3",
            "lora_r.x=1",
            "datasets.7.path=x",
            "datasets.path=x",
            "learnig_rate=1",
            "lora_r=8x",
            "datasets.0.path=none.jsonl",
            "placement.gpu=1",
            "defaults.seed=x",
            "lora_target_modules=[a",
            "name=",
        ),
    ),
    Bad(
        "TOML",
        """\
name = "q"
[defaults]
base_model="tiny-toon"
learnig_rate=1
seed=2026-01-01
datasets=[{path="data/x.jsonl"}]
[streams.one]
lora_r="8"
""",
        """
my.toml:4: defaults.learnig_rate: unknown setting; did you mean `learning_rate`?
my.toml:5: defaults.seed: expected a whole number of at least 0 and below 4294967296, got '2026-01-01'; the default is 0
my.toml:6: defaults.datasets.0.path: no file matches data/x.jsonl in {proj}; the folder holds 2 .json files, 2 .jsonl files
my.toml:8: streams.one.lora_r: expected a whole number of at least 1, got '8'; write it without quotes
4 problems; nothing was started
""",
        name="my.toml",
    ),
    Bad(
        "TOML that is none",
        'name = "q\n',
        r"""
my.toml:1: not TOML: Illegal character '\n'; check quotes and brackets there
1 problem; nothing was started
""",
        name="my.toml",
    ),
]


@pytest.mark.parametrize("bad", CASES, ids=[bad.what for bad in CASES])
def test_a_mistake_is_reported_with_its_place_and_its_fix(loading, project, bad):
    with pytest.raises(UserErrors) as caught:
        loading(bad.text, *bad.overrides, name=bad.name)
    assert str(caught.value).replace(str(project), "{proj}").splitlines() == bad.told.strip("\n").splitlines()


@pytest.mark.parametrize("bad", CASES, ids=[bad.what for bad in CASES])
def test_every_line_is_place_mistake_and_fix(loading, bad):
    with pytest.raises(UserErrors) as caught:
        loading(bad.text, *bad.overrides, name=bad.name)
    for error in caught.value.errors:
        assert error.where and error.what and error.fix and "\n" not in str(error)


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda path: None, "my.yaml: no such file; correct the path; `swarm init` writes a config to begin with"),
        (lambda path: path.mkdir(), "my.yaml: a folder, not a file; correct the path; `swarm init` writes a config to begin with"),
        (lambda path: path.write_bytes(b"name: q\nx: \xff\n"), "my.yaml:2: byte 11 is not UTF-8; save the file as UTF-8"),
        (lambda path: path.write_bytes(b"#" * (1 << 21)), "my.yaml: larger than 1 MiB, so no config; name the config; data files are named in it"),
    ],
    ids=["missing", "folder", "latin-1", "huge"],
)  # fmt: skip
def test_a_file_that_is_no_text_is_reported_before_anything_is_read(project, make, told):
    make(project / "my.yaml")
    with pytest.raises(UserErrors) as caught:
        load(Path("my.yaml"), cwd=project)
    assert str(caught.value) == f"{told}\n1 problem; nothing was started"


@pytest.mark.parametrize(
    ("line", "fix"),
    [
        ("report_to: wandb", "write it as a list: [wandb]"),
        ("report_to: none", "correct it, or leave it out"),
        ("metrics: rouge_l", "write it as a list: [rouge_l]"),
        ("use_dora: 'true'", "write it without quotes"),
        ("lora_r: 8.0", "write 8"),
        ("lora_r: .inf", "the default is 8"),
        ("datasets: [data/train.jsonl]", "write `{path: data/train.jsonl}`"),
        ("datasets: [{path: 'https://example.org/a.jsonl'}]", "download the file, or write `owner/name` for a dataset of the hub"),
    ],
)  # fmt: skip
def test_the_fix_of_a_value_in_another_form_is_the_value_in_ours(loading, project, line, fix):
    text = f"name: quick\ndefaults:\n  base_model: tiny-toon\n  {line}\nstreams: {{one: {{}}}}\n"
    with pytest.raises(UserErrors) as caught:
        loading(text)
    assert [error.fix for error in caught.value.errors if not error.what.startswith("is missing")] == [fix]


def test_a_list_that_is_too_short_is_answered_with_its_bound(loading, project):
    text = "name: quick\ndefaults:\n  base_model: tiny-toon\n  datasets: [{path: data/train.jsonl, type: labelled}]\n  method: classify\n  labels: [a]\nstreams: {one: {}}\n"
    with pytest.raises(UserErrors, match=r"labels: expected a list of texts, at least 2, at most 1000, got \['a'\]"):
        loading(text)


def test_an_early_stop_that_the_evaluations_of_a_run_cannot_reach_is_refused_with_the_arithmetic(loading):
    """A13."""
    text = "name: x\nstreams:\n  one: {base_model: tiny-toon, datasets: [{path: data/train.jsonl}], early_stopping_patience: 2, evals_per_run: 4}\n"
    what = "it can end nothing before evaluation 3 of 3 after the start, which is the last; raise `evals_per_run` above 4, or lower it"
    with pytest.raises(UserErrors, match=re.escape(what)):
        loading(text)
    assert loading(text.replace("evals_per_run: 4", "evals_per_run: 5")).run.streams["one"].evals_per_run == 5
