"""Command line: score ONNX models side by side on labelled data."""

import sys
from functools import partial
from typing import Any

import click

from bct_onnx.errors import BctError

from .embeddings import evaluate_embeddings
from .glue import TASKS, evaluate_glue
from .images import IMAGENET, Preprocess, evaluate_images
from .options import COUNT, DATA, MODELS, PATH, SAMPLES, TOKENIZER, Numbers, add_command
from .perplexity import DEFAULTS as PERPLEXITY
from .perplexity import evaluate_perplexity
from .questions import evaluate_questions
from .records import DEFAULTS, Evaluation
from .retrieval import evaluate_retrieval
from .sentences import LIMIT
from .speech import evaluate_speech
from .texts import MOST_TOKENS, evaluate_texts
from .tokens import evaluate_tokens


class _Group(click.Group):
    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except BctError as error:
            click.echo(f"error: {error}", err=True)
            sys.exit(error.exit_code)


@click.group(cls=_Group)
def main() -> None:
    """Score ONNX models side by side on labelled data; the first model is the reference.

    MODELS are ONNX files, or folders of them with tokenizer or processor. The tasks speech, tokens, questions,
    translation and summarization run the task's own pipeline: pip install 'bct-onnx[eval,export]'.
    """


def _limit(default: int | None, otherwise: str = "") -> Any:
    return click.option(
        "--limit",
        default=default,
        show_default=default is not None,
        type=click.IntRange(min=4),
        help=f"Longest text in tokens{otherwise}.",
    )


def _images(
    mean: tuple[float, float, float] | None, std: tuple[float, float, float] | None, size: int | None, **asked: Any
) -> Evaluation:
    given = mean or std or size
    preprocess = Preprocess(mean or IMAGENET.mean, std or IMAGENET.std, size) if given else None
    return evaluate_images(preprocess=preprocess, **asked)


_EMBEDDING = (DATA, MODELS, TOKENIZER, _limit(None, f"; default: what the model's folder says, else {LIMIT}"), SAMPLES)

add_command(
    main,
    "glue",
    evaluate_glue,
    "Classify the sentences of DATA, a .jsonl or .tsv file of sentence1, (sentence2,) label.",
    click.argument("task", type=click.Choice(list(TASKS), case_sensitive=False)),
    DATA,
    MODELS,
    TOKENIZER,
    _limit(128),
    SAMPLES,
    batch=DEFAULTS.batch,
)
add_command(
    main,
    "embeddings",
    evaluate_embeddings,
    "Embed the sentences of DATA, a .jsonl or .tsv file of sentence1, sentence2 and how alike they are.",
    *_EMBEDDING,
    batch=DEFAULTS.batch,
)
add_command(
    main,
    "retrieval",
    evaluate_retrieval,
    "Find passages: DATA is a .jsonl or .tsv file of query and passage, or a folder of queries.jsonl, corpus.jsonl and"
    " qrels.",
    *_EMBEDDING,
    batch=DEFAULTS.batch,
)
add_command(
    main,
    "images",
    _images,
    "Classify the pictures of DATA: a folder (0017.jpg or 17/cat.jpg) or an .npz file (images, labels).",
    DATA,
    MODELS,
    click.option("--mean", type=Numbers(), help="Of pixel / 255, per channel; default: the model's processor's."),
    click.option("--std", type=Numbers(), help="Of pixel / 255, per channel; default: the model's processor's."),
    click.option("--size", type=COUNT, help="Pictures' side, where the model takes any."),
    SAMPLES,
    batch=DEFAULTS.batch,
)
add_command(
    main,
    "perplexity",
    evaluate_perplexity,
    "Predict each token of TEXT from those before it.",
    click.argument("text", type=PATH),
    MODELS,
    TOKENIZER,
    click.option("--window", default=256, show_default=True, type=COUNT, help="Context in tokens."),
    click.option("--stride", type=COUNT, help="From window to window; default: half the window."),
    click.option("--begin", type=int, help="Token before each document; default: the tokenizer's, -1: none."),
    click.option("--lines", is_flag=True, help="Each line is a document."),
    click.option("--limit", type=COUNT, help="Take the first tokens of each document only."),
    batch=PERPLEXITY.batch,
)
add_command(
    main,
    "speech",
    evaluate_speech,
    "Recognize the speech in DATA: a folder of .wav or .flac files with a .txt beside each, or with a .tsv or .jsonl"
    " file of path and text; or such a file.",
    DATA,
    MODELS,
    click.option("--language", help="Of the speech: en, say; default: the model's, where its folder says so."),
    SAMPLES,
)
add_command(
    main,
    "tokens",
    evaluate_tokens,
    "Tag the words of DATA: a .jsonl file of words and tags, or one in CoNLL's format.",
    DATA,
    MODELS,
    SAMPLES,
)
add_command(
    main,
    "questions",
    evaluate_questions,
    "Answer the questions of DATA: a .json file as SQuAD's, or a .jsonl file of question, context and answers.",
    DATA,
    MODELS,
    SAMPLES,
)
for _task, _figures in (("translation", "BLEU and chrF"), ("summarization", "ROUGE")):
    add_command(
        main,
        _task,
        partial(evaluate_texts, _task),
        f"Write the target of each source of DATA, a .jsonl or .tsv file of source and target; {_figures}.",
        DATA,
        MODELS,
        click.option("--prefix", default="", help="Before every source: 'summarize: ', for T5."),
        click.option("--language", help="Of the targets; BLEU cuts words of zh, ja and ko otherwise."),
        click.option("--tokens", default=MOST_TOKENS, show_default=True, type=COUNT, help="Most that are written."),
        SAMPLES,
    )


if __name__ == "__main__":
    main(prog_name="python -m bct_onnx.evaluate")
