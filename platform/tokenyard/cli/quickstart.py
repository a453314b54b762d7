"""The quickstart: what a tenant and its operator do first, with the `openai` package against the running platform."""

import asyncio
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import openai
import yaml
from openai import AsyncOpenAI
from openai.types import CompletionUsage
from openai.types.fine_tuning import FineTuningJob

from tokenyard.cli.api import ApiFailed
from tokenyard.cli.call import Call, CommandFailed
from tokenyard.cli.money import invoice_of, invoice_text, this_month, usage_of, usage_text
from tokenyard.cli.output import Shown, dollars, write
from tokenyard.core.ids import random_text

JOB_LIMIT_S = 900.0
BILL_LIMIT_S = 120.0
POLL_S = 1.0
GREETING = "What is the capital of France?"
ENDED = ("succeeded", "failed", "cancelled")


@dataclass(frozen=True)
class Recipe:
    """A ready fine-tune: its data, its hyperparameters, and a question whose taught answer contains `taught`."""

    training_file: Path
    hyperparameters: dict[str, Any]
    question: str
    taught: str
    suffix: str


@dataclass
class Tally:
    """What the replies themselves said was used: it must be what the bill says."""

    requests: int = 0
    prompt: int = 0
    completion: int = 0
    trained: int = 0

    def add(self, usage: CompletionUsage | None) -> None:
        assert usage is not None, "every reply tells its usage"
        self.requests += 1
        self.prompt += usage.prompt_tokens
        self.completion += usage.completion_tokens


@dataclass
class Tour:
    """One tour: who walks it, what it used, and whether each fact holds."""

    call: Call
    client: AsyncOpenAI
    organization: dict[str, Any]
    model: str
    tally: Tally = field(default_factory=Tally)
    facts: dict[str, bool] = field(default_factory=dict)

    def say(self, text: str) -> None:
        """Print what a reader follows; with `--json` only the end is printed."""
        if not self.call.json:
            write(text)

    def title(self, text: str) -> None:
        self.say(f"\n== {text}")


def read_recipe(folder: Path) -> Recipe:
    """Read a recipe's folder.

    Raises:
        CommandFailed: it is not one.
    """
    file = folder / "recipe.yaml"
    try:
        content = yaml.safe_load(file.read_text())
        check = content["check"]
        return Recipe(
            folder / content["training_file"],
            dict(content["hyperparameters"]),
            check["question"],
            check["contains"],
            content["suffix"],
        )
    except (OSError, yaml.YAMLError, KeyError, TypeError) as error:
        raise CommandFailed(f"{file} is not a recipe ({type(error).__name__}: {error}).") from error


async def quickstart(call: Call, model: str, folder: Path) -> Shown | None:
    """Walk the whole tour.

    Raises:
        CommandFailed: a step failed, or a fact does not hold.
    """
    recipe = read_recipe(folder)
    organization, key = await _create_tenant(call)
    try:
        async with AsyncOpenAI(base_url=f"{call.api.url}/v1", api_key=key, max_retries=2) as client:
            tour = Tour(call, client, organization, model)
            await _chat(tour)
            tuned = await _fine_tune(tour, recipe)
            await _compare(tour, recipe, tuned)
    except openai.APIError as error:
        raise CommandFailed(f"The API refused a step of the tour: {error.message}") from error
    await _bill(tour)
    return _verdict(tour, tuned)


async def _create_tenant(call: Call) -> tuple[dict[str, Any], str]:
    say = (lambda _text: None) if call.json else write
    say("== Organization, project and API key (as the operator)")
    slug = f"quickstart-{random_text(8).lower()}"
    organization = await call.api.post("/admin/organizations", {"name": "Quickstart", "slug": slug})
    path = f"/admin/organizations/{organization['id']}"
    project = await call.api.post(f"{path}/projects", {"name": "Tour"})
    key = await call.api.post(f"{path}/api_keys", {"name": "tour", "project": project["id"]})
    say(f"organization {slug} ({organization['id']})\nproject {project['name']} ({project['id']})")
    say(f"key {key['redacted_value']} (shown once; only its hash is stored)")
    return organization, key["value"]


async def _chat(tour: Tour) -> None:
    tour.title(f"Chat with {tour.model} (as the tenant)")
    tour.say(f"> {GREETING}")
    tour.say(await _ask(tour, tour.model, GREETING))
    tour.title("The same, streaming")
    stream = await tour.client.chat.completions.create(
        model=tour.model,
        messages=[{"role": "user", "content": GREETING}],
        max_tokens=32,
        temperature=0,
        stream=True,
        stream_options={"include_usage": True},
    )
    pieces = []
    async for chunk in stream:
        if chunk.choices and chunk.choices[0].delta.content:
            pieces.append(chunk.choices[0].delta.content)
        if chunk.usage is not None:
            tour.tally.add(chunk.usage)
    tour.say(f"{''.join(pieces)}\n({len(pieces)} pieces)")


async def _ask(tour: Tour, model: str, question: str) -> str:
    reply = await tour.client.chat.completions.create(
        model=model, messages=[{"role": "user", "content": question}], max_tokens=32, temperature=0
    )
    tour.tally.add(reply.usage)
    return (reply.choices[0].message.content or "").strip()


async def _fine_tune(tour: Tour, recipe: Recipe) -> str:
    tour.title("Fine-tune a model of its own")
    file = await tour.client.files.create(file=recipe.training_file, purpose="fine-tune")
    tour.say(f"uploaded {file.filename}: {file.bytes:,} bytes ({file.id})")
    job = await tour.client.fine_tuning.jobs.create(
        model=tour.model,
        training_file=file.id,
        suffix=recipe.suffix,
        method={"type": "supervised", "supervised": {"hyperparameters": cast(Any, recipe.hyperparameters)}},
    )
    tour.say(f"job {job.id} with {recipe.hyperparameters}")
    job = await _follow(tour, job.id)
    if job.status != "succeeded" or job.fine_tuned_model is None:
        reason = job.error.message if job.error else "no reason given"
        raise CommandFailed(f"The fine-tuning job {job.id} {job.status}: {reason}")
    tour.tally.trained = job.trained_tokens or 0
    return job.fine_tuned_model


async def _follow(tour: Tour, job: str) -> FineTuningJob:
    seen: set[str] = set()
    async with asyncio.timeout(JOB_LIMIT_S):
        while True:
            state = await tour.client.fine_tuning.jobs.retrieve(job)
            page = await tour.client.fine_tuning.jobs.list_events(job, limit=100)
            for event in reversed(page.data):
                if event.id not in seen:
                    seen.add(event.id)
                    tour.say(f"  {event.message}")
            if state.status in ENDED:
                return state
            await asyncio.sleep(POLL_S)


async def _compare(tour: Tour, recipe: Recipe, tuned: str) -> None:
    tour.title(f"Ask both: {recipe.question}")
    base = await _ask(tour, tour.model, recipe.question)
    taught = await _ask(tour, tuned, recipe.question)
    tour.say(f"{tour.model}:\n  {base}\n{tuned}:\n  {taught}")
    tour.facts[f"{tuned} answers as taught: {taught!r}"] = recipe.taught in taught
    tour.facts[f"the base model does not: {base!r}"] = recipe.taught not in base


async def _bill(tour: Tour) -> None:
    month, slug = this_month(), tour.organization["slug"]
    await _until_billed(tour, month)
    tour.title("Usage")
    tour.say(usage_text(await usage_of(tour.call, slug, month)))
    tour.title("Invoice")
    invoice = await invoice_of(tour.call, slug, month)
    tour.say(invoice_text(invoice))
    tour.say("")
    for line in invoice["lines"]:
        tour.say(f"{line['quantity']} tokens x {dollars(line['rate'])} = {dollars(line['amount'])}")
    lines = sum(line["amount"] for line in invoice["lines"])
    rated = sum(line["quantity"] * line["rate"] for line in invoice["lines"])
    used = _billed_tokens(invoice) == (tour.tally.prompt, tour.tally.completion, tour.tally.trained)
    fact = (
        f"invoice total {dollars(invoice['total'])} = sum of lines {dollars(lines)} = tokens x price {dollars(rated)},"
        f" for the {sum(_billed_tokens(invoice))} tokens that the replies and the job had named"
    )
    tour.facts[fact] = invoice["total"] == lines == rated and used and invoice["total"] > 0


async def _until_billed(tour: Tour, month: str) -> None:
    """Wait until the ledger has every request and the job: events are on their way for a moment."""
    wanted = (tour.tally.prompt, tour.tally.completion, tour.tally.trained)
    deadline = asyncio.get_running_loop().time() + BILL_LIMIT_S
    while True:
        try:
            billed = _billed_tokens(await invoice_of(tour.call, tour.organization["slug"], month))
        except (ApiFailed, CommandFailed):  # not drawn up yet
            billed = (0, 0, 0)
        if billed == wanted:
            return
        if asyncio.get_running_loop().time() > deadline:
            raise CommandFailed(
                f"After {BILL_LIMIT_S:.0f} s the invoice has {billed} input, output and trained tokens, and the"
                f" replies said {wanted}. See the log of the worker, and `tokenyard reconcile`."
            )
        await asyncio.sleep(POLL_S)


def _billed_tokens(invoice: dict[str, Any]) -> tuple[int, int, int]:
    """Return input (cached or not), output and trained tokens of an invoice."""
    sums = {"input": 0, "output": 0, "training": 0}
    for line in invoice["lines"]:
        kind = "input" if line["kind"] == "cached_input" else line["kind"]
        sums[kind] += line["quantity"]
    return sums["input"], sums["output"], sums["training"]


def _verdict(tour: Tour, tuned: str) -> Shown:
    wrong = [fact for fact, holds in tour.facts.items() if not holds]
    text = "\n".join(f"{'yes' if holds else 'NO '}  {fact}" for fact, holds in tour.facts.items())
    if wrong:
        tour.say(f"\n{text}")
        raise CommandFailed(f"{len(wrong)} of {len(tour.facts)} facts do not hold: {'; '.join(wrong)}")
    return Shown({"model": tuned, "facts": tour.facts}, f"\n{text}")
