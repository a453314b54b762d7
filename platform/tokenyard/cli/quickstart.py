"""`tokenyard quickstart`: what a tenant and its operator do first, with the `openai` package and real calls.

It ends with three facts, and fails where one does not hold.
"""

import asyncio
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from tokenyard.cli.command import CommandFailed, CommandRun, platform_command
from tokenyard.cli.money.commands import invoice_of, invoice_text, this_month, usage_text
from tokenyard.cli.output import CommandOutput, dollars, write
from tokenyard.cli.recipes.recipe import Recipe, RecipeCheck, read_recipe
from tokenyard.clients.platform_api.connection import ApiFailed
from tokenyard.clients.platform_api.shapes import ENDED, InvoiceInfo, OrganizationInfo
from tokenyard.core.ids import random_text
from tokenyard.settings import shipped
from tokenyard.stack.snippets import MAX_TOKENS, PROMPT

if TYPE_CHECKING:  # it takes half a second to load, which no other command needs
    from openai import AsyncOpenAI
    from openai.types import CompletionUsage
    from openai.types.fine_tuning import FineTuningJob

JOB_LIMIT_S = 900.0
BILL_LIMIT_S = 120.0
POLL_S = 1.0


def quickstart_command(app: typer.Typer) -> None:
    @platform_command(app, "quickstart")
    async def _quickstart(
        run: CommandRun,
        model: Annotated[str | None, typer.Option(help="Base model; default: the first one served.")] = None,
        recipe: Annotated[Path | None, typer.Option(help="Folder with recipe.yaml; default: the tour's own.")] = None,
    ) -> CommandOutput:
        """Tour the platform: organization, chat, fine-tune, taught answer, usage, invoice. At most 5 minutes."""
        found = read_recipe(recipe or shipped("deployments/recipes/tour"))
        return await quickstart(run, model or run.settings.models[0], found)


@dataclass
class Tally:
    """What the replies themselves said was used: it must be what the bill says."""

    prompt: int = 0
    completion: int = 0
    trained: int = 0

    def add(self, usage: "CompletionUsage | None") -> None:
        assert usage is not None, "every reply tells its usage"
        self.prompt += usage.prompt_tokens
        self.completion += usage.completion_tokens

    @property
    def tokens(self) -> tuple[int, int, int]:
        return self.prompt, self.completion, self.trained


@dataclass
class Tour:
    """One tour: who walks it, what it used, and whether each fact holds."""

    run: CommandRun
    client: "AsyncOpenAI"
    organization: OrganizationInfo
    model: str
    tally: Tally = field(default_factory=Tally)
    facts: dict[str, bool] = field(default_factory=dict)

    def say(self, text: str) -> None:
        """Print what a reader follows; with `--json` only the end is printed."""
        if not self.run.json:
            write(text)

    def title(self, text: str) -> None:
        self.say(f"\n== {text}")


async def quickstart(run: CommandRun, model: str, recipe: Recipe) -> CommandOutput:
    import openai  # noqa: PLC0415

    if recipe.check is None:
        raise CommandFailed(f"The recipe {recipe.name} has no `check`: a question to ask both models.")

    organization, key = await _create_tenant(run)
    try:
        async with openai.AsyncOpenAI(base_url=f"{run.url}/v1", api_key=key, max_retries=2) as client:
            tour = Tour(run, client, organization, model)
            await _chat(tour)
            tuned = await _fine_tune(tour, recipe)
            await _compare(tour, recipe.check, tuned)
    except openai.APIError as error:
        raise CommandFailed(f"The API refused a step of the tour: {error.message}") from error
    await _bill(tour)
    return _verdict(tour, tuned)


async def _create_tenant(run: CommandRun) -> tuple[OrganizationInfo, str]:
    slug = f"quickstart-{random_text(8).lower()}"
    organization = await run.api.create_organization(name="Quickstart", slug=slug)
    project = await run.api.create_project(organization.id, "Tour")
    key = await run.api.create_key(organization.id, name="tour", project=project.id)
    if not run.json:
        write(
            "== Organization, project and API key (as the operator)\n"
            f"organization {slug} ({organization.id})\nproject {project.name} ({project.id})\n"
            f"key {key.redacted_value} (shown once; only its hash is stored)"
        )
    return organization, key.value


async def _chat(tour: Tour) -> None:
    tour.title(f"Chat with {tour.model} (as the tenant)")
    tour.say(f"> {PROMPT}")
    tour.say(await _ask(tour, tour.model, PROMPT))
    tour.title("The same, streaming")
    stream = await tour.client.chat.completions.create(
        model=tour.model,
        messages=[{"role": "user", "content": PROMPT}],
        max_tokens=MAX_TOKENS,
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
    file = await tour.client.files.create(file=recipe.folder / recipe.training_file, purpose="fine-tune")
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


async def _follow(tour: Tour, job: str) -> "FineTuningJob":
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


async def _compare(tour: Tour, check: RecipeCheck, tuned: str) -> None:
    tour.title(f"Ask both: {check.question}")
    base = await _ask(tour, tour.model, check.question)
    taught = await _ask(tour, tuned, check.question)
    tour.say(f"{tour.model}:\n  {base}\n{tuned}:\n  {taught}")
    tour.facts[f"{tuned} answers as taught: {taught!r}"] = check.contains in taught
    tour.facts[f"the base model does not: {base!r}"] = check.contains not in base


async def _bill(tour: Tour) -> None:
    month = this_month()
    invoice = await _until_billed(tour, month)
    tour.title("Usage")
    tour.say(usage_text(await tour.run.api.usage_of_month(tour.organization.id, month)))
    tour.title("Invoice")
    tour.say(f"{invoice_text(invoice)}\n")
    for line in invoice.lines:
        tour.say(f"{line.quantity} {line.unit} x {dollars(line.rate)} = {dollars(line.amount)}")
    lines = sum(line.amount for line in invoice.lines)
    rated = sum(line.quantity * line.rate for line in invoice.lines)
    fact = (
        f"invoice total {dollars(invoice.total)} = sum of lines {dollars(lines)} = quantity x price {dollars(rated)},"
        f" for the {sum(_billed_tokens(invoice))} tokens that the replies and the job had named"
    )
    tour.facts[fact] = invoice.total == lines == rated and invoice.total > 0


async def _until_billed(tour: Tour, month: str) -> InvoiceInfo:
    """Return the invoice once it has every request and the job: events are on their way for a moment."""
    wanted = tour.tally.tokens
    deadline = asyncio.get_running_loop().time() + BILL_LIMIT_S
    while True:
        billed = (0, 0, 0)
        try:
            invoice = await invoice_of(tour.run, tour.organization, month)
            billed = _billed_tokens(invoice)
            if billed == wanted:
                return invoice
        except (ApiFailed, CommandFailed):  # not drafted yet
            pass
        if asyncio.get_running_loop().time() > deadline:
            raise CommandFailed(
                f"After {BILL_LIMIT_S:.0f} s the invoice has {billed} input, output and trained tokens, and the"
                f" replies said {wanted}. See the log of the worker, and `tokenyard reconcile`."
            )
        await asyncio.sleep(POLL_S)


def _billed_tokens(invoice: InvoiceInfo) -> tuple[int, int, int]:
    """Return input (cached or not), output and trained tokens of an invoice."""
    sums = {"input": 0, "output": 0, "training": 0}
    for line in (line for line in invoice.lines if line.unit == "tokens"):
        sums["input" if line.kind == "cached_input" else line.kind] += line.quantity
    return sums["input"], sums["output"], sums["training"]


def _verdict(tour: Tour, tuned: str) -> CommandOutput:
    wrong = [fact for fact, holds in tour.facts.items() if not holds]
    text = "\n".join(f"{'yes' if holds else 'NO '}  {fact}" for fact, holds in tour.facts.items())
    if wrong:
        tour.say(f"\n{text}")
        raise CommandFailed(f"{len(wrong)} of {len(tour.facts)} facts do not hold: {'; '.join(wrong)}")
    return CommandOutput({"model": tuned, "facts": tour.facts}, f"\n{text}")
