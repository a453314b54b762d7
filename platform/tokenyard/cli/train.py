"""The command `tokenyard-train`: creates a fine-tuning job through the API and follows it to its end.

A tenant runs it with TOKENYARD_API_KEY; the operator, also under `ray job submit`, with TOKENYARD_ADMIN_KEY, or with
neither on the machine that owns the data folder. It exits with 0 only where the job succeeded. Ctrl-C and SIGTERM
cancel the job, unless `--detach` was given.
"""

import asyncio
import os
import signal
import sys
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Annotated, Any

import typer

from tokenyard.cli.api import Api, ApiFailed
from tokenyard.cli.operator_door import NoDatabase, operator_key
from tokenyard.cli.output import moment, write
from tokenyard.cli.tenant_door import tenant_api
from tokenyard.cli.training_job import Following, create, file_id
from tokenyard.stack.installation import load_settings

FAILED, STOPPED = 1, 130


@dataclass(frozen=True)
class Order:
    """What is to be trained."""

    training_file: str
    validation_file: str | None
    model: str
    suffix: str | None
    seed: int | None
    hyperparameters: dict[str, Any]


async def _train(api: Api, key: str, order: Order, *, detach: bool) -> int:
    body: dict[str, Any] = {
        "model": order.model,
        "training_file": await file_id(api, key, order.training_file),
        "method": {"type": "supervised", "supervised": {"hyperparameters": order.hyperparameters}},
    }
    if order.validation_file:
        body["validation_file"] = await file_id(api, key, order.validation_file)
    body |= {name: value for name, value in (("suffix", order.suffix), ("seed", order.seed)) if value is not None}
    job = await create(api, body)
    write(f"Job {job['id']}: {order.model}, {job['hyperparameters']}")
    following = Following(api, job["id"], _tell)
    ended = await _until_signal(following, asyncio.get_running_loop())
    if ended is None and detach:
        write(f"Not following any longer; job {job['id']} goes on.")
        return STOPPED
    if ended is None:
        write(f"Cancelling job {job['id']}.")
        ended = await following.cancel()
    return _told(ended)


async def _until_signal(following: Following, loop: asyncio.AbstractEventLoop) -> dict[str, Any] | None:
    """Follow until the job has ended; None where a signal came first."""
    follow = loop.create_task(following.until_end())
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, follow.cancel)
    try:
        return await follow
    except asyncio.CancelledError:
        return None


def _tell(event: dict[str, Any]) -> None:
    write(f"{moment(event['created_at'])}  {event['level']:<5}  {event['message']}")


def _told(job: dict[str, Any]) -> int:
    if job["status"] == "succeeded":
        write(f"Succeeded: {job['fine_tuned_model']} ({job['trained_tokens']} trained tokens)")
        return 0
    reason = f": {job['error']['message']}" if job.get("error") else "."
    write(f"The job {job['status']}{reason}" if job["status"] == "failed" else f"The job was {job['status']}.")
    return FAILED


def _main(
    *,
    training_file: Annotated[str, typer.Option(help="A JSONL file here, or the id of an uploaded one (file-...).")],
    model: Annotated[str, typer.Option(help="The base model.")],
    organization: Annotated[str | None, typer.Option(help="Id or slug; the operator says whose job it is.")] = None,
    project: Annotated[str | None, typer.Option(help="The operator says which; default: the default project.")] = None,
    suffix: Annotated[str | None, typer.Option(help="Part of the new model's name: a-z, 0-9 and '-'.")] = None,
    validation_file: Annotated[str | None, typer.Option(help="Held-out rows: a file here or an id.")] = None,
    n_epochs: Annotated[int | None, typer.Option(help="Passes over the file; default: auto.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Rows a step; default: auto.")] = None,
    learning_rate_multiplier: Annotated[float | None, typer.Option(help="Default: auto.")] = None,
    seed: Annotated[int | None, typer.Option(help="For the same result again.")] = None,
    base_url: Annotated[str, typer.Option(envvar="TOKENYARD_URL", help="The gateway.")] = "http://127.0.0.1:8000",
    detach: Annotated[bool, typer.Option("--detach", help="Ctrl-C and SIGTERM leave the job running.")] = False,
) -> None:
    """Fine-tune a model and follow the job. The key is TOKENYARD_API_KEY, or the operator's TOKENYARD_ADMIN_KEY."""
    wanted = {
        "n_epochs": n_epochs,
        "batch_size": batch_size,
        "learning_rate_multiplier": learning_rate_multiplier,
    }
    hyperparameters = {name: value for name, value in wanted.items() if value is not None}
    order = Order(training_file, validation_file, model, suffix, seed, hyperparameters)

    async def run() -> int:
        api_key = os.environ.get("TOKENYARD_API_KEY")
        given = os.environ.get("TOKENYARD_ADMIN_KEY")
        async with AsyncExitStack() as stack:
            if organization and not given and not api_key:
                given = await stack.enter_async_context(operator_key(None, load_settings()))
            door = tenant_api(
                base_url.rstrip("/").removesuffix("/v1"),
                api_key=api_key,
                admin_key=given,
                organization=organization,
                project=project,
            )
            api, key = await stack.enter_async_context(door)
            return await _train(api, key, order, detach=detach)

    try:
        status = asyncio.run(run())
    except (ApiFailed, NoDatabase) as error:
        sys.stderr.write(f"{error}\n")
        status = FAILED
    except TimeoutError:
        sys.stderr.write("The job was asked to end, but had not done so in time.\n")
        status = FAILED
    except KeyboardInterrupt:
        status = STOPPED
    raise typer.Exit(status)


def main() -> None:
    """Run the command."""
    typer.run(_main)
