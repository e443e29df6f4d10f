"""The embedded base's tokenizer: a byte-level BPE that writes any UTF-8 text and reads it back unchanged; it trains no model."""

from collections.abc import Iterable

from tokenizers import Regex, Tokenizer, decoders, pre_tokenizers
from tokenizers.models import BPE
from tokenizers.trainers import BpeTrainer
from transformers import PreTrainedTokenizerFast

from trainer.embedded.text import Sample

VOCABULARY_TOKENS = 1024
LONGEST_INPUT_TOKENS = 1024
PAD, END, BEGIN = "<|pad|>", "<|end|>", "<|begin|>"
SYSTEM, USER, ASSISTANT = "<|system|>", "<|user|>", "<|assistant|>"
MARKS = (PAD, END, BEGIN, SYSTEM, USER, ASSISTANT)

# Words, single digits, a line break with its indent, blanks and runs of signs never share a token. A word is therefore cut
# the same way wherever it stands, and copying it from one form into another is copying its tokens.
PIECES = r"\p{L}+|\p{N}|\n *| +|[^\s\p{L}\p{N}]+|\s"

CHAT_TEMPLATE = """\
{%- for message in messages -%}
{%- if message['role'] == 'assistant' -%}
{{- '<|assistant|>' -}}
{%- generation -%}{{- message['content'] + '<|end|>' -}}{%- endgeneration -%}
{%- elif message['role'] == 'user' -%}
{{- '<|user|>' + message['content'] + '<|end|>' -}}
{%- elif message['role'] == 'system' -%}
{{- '<|system|>' + message['content'] + '<|end|>' -}}
{%- else -%}
{{- raise_exception("role '" + message['role'] + "' is unknown; use system, user or assistant") -}}
{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|assistant|>' -}}{%- endif -%}
"""


def train_tokenizer(samples: Iterable[Sample]) -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PIECES), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = BpeTrainer(
        vocab_size=VOCABULARY_TOKENS,
        special_tokens=list(MARKS),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    texts = (message.content for sample in samples for message in sample.messages)
    tokenizer.train_from_iterator(texts, trainer)
    return dressed(tokenizer)


def dressed(tokenizer: Tokenizer) -> PreTrainedTokenizerFast:
    """The tokenizer with its marks and chat template, as transformers saves it."""
    return PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=tokenizer,
        pad_token=PAD,
        eos_token=END,
        bos_token=BEGIN,
        additional_special_tokens=[SYSTEM, USER, ASSISTANT],
        chat_template=CHAT_TEMPLATE,
        model_max_length=LONGEST_INPUT_TOKENS,
        padding_side="right",
        clean_up_tokenization_spaces=False,
    )


def mark_id(tokenizer: PreTrainedTokenizerFast, mark: str) -> int:
    found = tokenizer.convert_tokens_to_ids(mark)
    assert isinstance(found, int)
    return found
