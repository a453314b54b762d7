"""The flags of `tokenyard-train` that say what a job is: the command reads them, and so does what `ray job` sends."""

import argparse
import json
from collections.abc import Callable, Iterable
from typing import Any

from tokenyard.finetune.methods.method import Json

_PLAIN = ("model", "training_file", "validation_file", "suffix", "seed", "publish_if_worse", "callable_checkpoints")
_PAIR = "NAME=VALUE"
_HYPERPARAMETERS = ("n_epochs", "batch_size", "learning_rate_multiplier")


def add_job_flags(parser: argparse.ArgumentParser, *, files: str) -> None:
    """Add the flags; `files` says in the help what names a file."""
    add = parser.add_argument
    add("--model", required=True, help="the base model, or an own fine-tuned one to train further")
    add("--training-file", required=True, help=files)
    add("--validation-file", help=f"held-out rows: {files}")
    add("--suffix", help="part of the new model's name: a-z, 0-9 and '-'")
    add("--seed", type=int, help="for the same result again")
    add(
        "--method", default="supervised", help="supervised, dpo for rows of preferences, or reinforcement with a grader"
    )
    add("--n-epochs", type=int, help="passes over the file (default: auto)")
    add("--batch-size", type=int, help="rows a step (default: auto)")
    add("--learning-rate-multiplier", type=float, help="(default: auto)")
    any_other = "any other one, such as beta=0.2 or rank=16"
    add("--hyperparameter", type=_pair(_json_or_text), action="append", default=[], metavar=_PAIR, help=any_other)
    add("--metadata", type=_pair(str), action="append", default=[], metavar=_PAIR, help="kept with the job")
    add("--grader", type=_json, metavar="JSON", help="what says how much an answer is worth")
    add("--evaluation-rows", type=int, help="so many held-out rows are answered by base and tuned model")
    add("--evaluation-general", action="store_const", const=True, help="general questions are answered by both, too")
    add("--integration", action="append", default=[], help="tensorboard: one more result file")
    add("--wandb", type=_json, metavar="JSON", help="a run of Weights & Biases as a result file: its project, ...")
    add("--callable-checkpoints", type=int, help="the last epochs whose models can be called, too")
    tried = "values to try: a job of each combination, of which the best is kept"
    add("--sweep", type=_pair(_numbers), action="append", default=[], metavar="NAME=1,2", help=tried)
    worse = "also a model that is no better than its base on held-out rows"
    add("--publish-if-worse", action="store_const", const=True, help=worse)


def job_body(given: argparse.Namespace) -> Json:
    """Return the body that the flags stand for, of `/v1/fine_tuning/jobs`, or with `--sweep` of `/sweeps` beside it.

    What was not given is not in it.
    """
    flags = vars(given)
    hyperparameters = dict(given.hyperparameter) | _given(flags, _HYPERPARAMETERS)
    settings = _present(hyperparameters=hyperparameters) | _given(flags, ("grader",))
    evaluation = _present(rows=given.evaluation_rows, general=given.evaluation_general)
    return _given(flags, _PLAIN) | _present(
        method={"type": given.method, given.method: settings},
        metadata=dict(given.metadata),
        evaluation=evaluation,
        integrations=[{"type": name} for name in given.integration] + _wandb(given.wandb),
        sweep=dict(given.sweep),
    )


def _wandb(settings: object) -> list[Json]:
    return [] if settings is None else [{"type": "wandb", "wandb": settings}]


def _given(flags: Json, names: Iterable[str]) -> Json:
    return {name: flags[name] for name in names if flags[name] is not None}


def _present(**fields: object) -> Json:
    return {name: value for name, value in fields.items() if value not in (None, {}, [])}


def _pair(read: Callable[[str], object]) -> Callable[[str], tuple[str, object]]:
    def pair(text: str) -> tuple[str, object]:
        name, equals, value = text.partition("=")
        if not equals:
            raise argparse.ArgumentTypeError(f"{text!r} is not {_PAIR}")
        return name, read(value)

    return pair


def _numbers(text: str) -> list[object]:
    return [_json(value) for value in text.split(",")]


def _json_or_text(text: str) -> object:
    try:
        return json.loads(text)
    except ValueError:
        return text


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"it is not JSON: {error}") from None
