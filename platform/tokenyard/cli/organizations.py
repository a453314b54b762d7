"""`tokenyard org`, `tokenyard project` and `tokenyard plan`."""

import functools
import inspect
import re
from collections.abc import Awaitable, Callable
from typing import Annotated

import typer

from tokenyard.cli.command import CommandFailed, CommandRun, platform_command, set_signature
from tokenyard.cli.output import CommandOutput, described, moment, moment_ms, table
from tokenyard.clients.platform_api.shapes import (
    LimitsInfo,
    LocalShareInfo,
    PlanInfo,
    ProjectInfo,
    TierInfo,
    TrainingLimitsInfo,
)

organizations = typer.Typer(help="Organizations: the tenants.", no_args_is_help=True)
projects = typer.Typer(help="Projects of an organization.", no_args_is_help=True)
plans = typer.Typer(help="Plans: limits, prices and models for many organizations.", no_args_is_help=True)

Organization = Annotated[str, typer.Argument(help="Its id or slug.")]
Plan = Annotated[str, typer.Argument(help="Its id or name.")]
Models = Annotated[
    list[str] | None, typer.Option("--model", help="A model's name or its beginning and a `*`; may be given again.")
]
MonthlyFee = Annotated[str | None, typer.Option("--monthly-fee", help="Dollars for each month, such as 20.")]
MonthlyMinimum = Annotated[
    str | None, typer.Option("--monthly-minimum", help="Dollars that each month comes to at least, the fee included.")
]
Multiplier = Annotated[str | None, typer.Option("--price-multiplier", help="Of all prices, such as 0.8.")]
Tiers = Annotated[
    list[str] | None,
    typer.Option(
        "--service-tier",
        help="priority=WEIGHT, flex=WEIGHT:MULTIPLIER or flex=none, which ends it; may be given again.",
    ),
]
Share = Annotated[
    str | None,
    typer.Option(
        "--local-share",
        help="Percent of limits and dollars that each gateway process grants while Redis is away: 20:5.00, or `none`.",
    ),
]
Pinned = Annotated[
    int | None,
    typer.Option("--pinned-adapters", help="So many fine-tuned models of an organization stay in memory; 0 is none."),
]
TrainingLimitOptions = Annotated[
    list[str] | None,
    typer.Option(
        "--training-limit", help="Of an organization's fine-tuning: running, unfinished or tokens_per_day, =N or =none."
    ),
]
Name = Annotated[str, typer.Argument(help="What people call it.")]

NO_LIMIT = "none"
_LIMIT_OPTIONS = {
    "requests_per_minute": typer.Option("--requests-per-minute", "--rpm", help="A number or `none`."),
    "tokens_per_minute": typer.Option("--tokens-per-minute", "--tpm", help="A number or `none`."),
    "requests_per_day": typer.Option("--requests-per-day", "--rpd", help="A number or `none`."),
    "tokens_per_day": typer.Option("--tokens-per-day", "--tpd", help="A number or `none`."),
    "concurrency": typer.Option("--concurrency", help="Requests at the same time, or `none`."),
    "monthly_spend": typer.Option("--monthly-spend", help="Dollars such as 25.00, or `none`."),
}


def limit_changes(given: dict[str, str | None]) -> LimitsInfo:
    """Return the limits to change, as the options give them; `none` takes a limit away."""
    changes: dict[str, str | int | None] = {}
    for name, text in given.items():
        if text is None:
            continue
        if name == "monthly_spend":
            changes["monthly_spend_dollars"] = None if text == NO_LIMIT else text
        elif text == NO_LIMIT or text.isdecimal():
            changes[name] = None if text == NO_LIMIT else int(text)
        else:
            raise CommandFailed(f"--{name.replace('_', '-')} is {text!r}; it must be a whole number or `none`.")
    return LimitsInfo.model_validate(changes)


def tier_changes(given: list[str] | None) -> dict[str, TierInfo | None]:
    """Return the service tiers as the options give them."""
    changes: dict[str, TierInfo | None] = {}
    for text in given or ():
        name, _, terms = text.partition("=")
        weight, _, multiplier = terms.partition(":")
        if terms != NO_LIMIT and not weight.isdecimal():
            raise CommandFailed(f"--service-tier is {text!r}; it must be like priority=8, flex=1:0.5 or flex=none.")
        own = {"price_multiplier": multiplier} if multiplier else {}
        changes[name] = None if terms == NO_LIMIT else TierInfo.model_validate({"weight": int(weight), **own})
    return changes


def training_limits(given: list[str]) -> TrainingLimitsInfo:
    """Return the limits of fine-tuning as the options give them; `none` takes a limit away."""
    changes: dict[str, int | None] = {}
    for text in given:
        name, _, number = text.partition("=")
        if name not in TrainingLimitsInfo.model_fields or not (number == NO_LIMIT or number.isdecimal()):
            raise CommandFailed(f"--training-limit is {text!r}; it must be like running=2 or tokens_per_day=none.")
        changes[name] = None if number == NO_LIMIT else int(number)
    return TrainingLimitsInfo.model_validate(changes)


def local_share(given: str) -> LocalShareInfo | None:
    """Return the local share as the option gives it; `none` is none."""
    percent, _, dollars = given.partition(":")
    if given != NO_LIMIT and not (percent.isdecimal() and dollars):
        raise CommandFailed(f"--local-share is {given!r}; it must be like 20:5.00, or `none`.")
    return None if given == NO_LIMIT else LocalShareInfo(percent=int(percent), spend_dollars=dollars)


def with_limit_options(work: Callable[..., Awaitable[CommandOutput]]) -> Callable[..., Awaitable[CommandOutput]]:
    """Give a command the six options in place of its last parameter, which is the `LimitsInfo` made of them."""

    @functools.wraps(work)
    async def command(run: CommandRun, **arguments: str | None) -> CommandOutput:
        changes = limit_changes({name: arguments.pop(name) for name in _LIMIT_OPTIONS})
        return await work(run, **arguments, changes=changes)

    options = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=Annotated[str | None, option])
        for name, option in _LIMIT_OPTIONS.items()
    ]
    set_signature(command, [*list(inspect.signature(work).parameters.values())[:-1], *options])
    return command


def slug_of(name: str) -> str:
    """Return a slug made of a name: `Acme Corp.` gives `acme-corp`."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:40].rstrip("-")


@platform_command(organizations, "create")
async def create(
    run: CommandRun,
    name: Name,
    slug: Annotated[str | None, typer.Option(help="Part of its models' names; default: made of the name.")] = None,
    weight: Annotated[int | None, typer.Option(help="Its share of busy replicas; default: its plan's, or 1.")] = None,
    plan: Annotated[str | None, typer.Option(help="A plan's id or name.")] = None,
) -> CommandOutput:
    """Create an organization; it gets the stated opening credit."""
    made = await run.api.create_organization(name=name, slug=slug or slug_of(name), weight=weight, plan=plan)
    return described(made)


@platform_command(organizations, "list")
async def listing(run: CommandRun) -> CommandOutput:
    """List all organizations."""
    found = [organization async for organization in run.api.organizations()]
    rows = [(one.slug, one.name, one.id, moment(one.created_at)) for one in found]
    empty = "No organizations yet; make one with `tokenyard org create`."
    return CommandOutput(found, table(("SLUG", "NAME", "ID", "CREATED"), rows, empty=empty))


@platform_command(organizations, "show")
async def show(run: CommandRun, organization: Organization) -> CommandOutput:
    """Show one organization and its limits."""
    return described(await run.organization(organization))


@platform_command(organizations, "limits")
@with_limit_options
async def limits(run: CommandRun, organization: Organization, changes: LimitsInfo) -> CommandOutput:
    """Show an organization's limits; change those that are given."""
    found = await run.organization(organization)
    if changes.model_fields_set:
        found = await run.api.limit_organization(found.id, changes)
    return described(found.limits)


@platform_command(organizations, "plan")
async def put_on_plan(
    run: CommandRun, organization: Organization, plan: Annotated[str, typer.Argument(help="Its id or name, or `none`.")]
) -> CommandOutput:
    """Put an organization on a plan; its own limits and weight go before the plan's."""
    return described(await run.api.put_on_plan(organization, None if plan == NO_LIMIT else plan))


@platform_command(organizations, "time-zone")
async def time_zone(
    run: CommandRun,
    organization: Organization,
    zone: Annotated[str | None, typer.Argument(help="To change it: an IANA name, such as Europe/Berlin.")] = None,
) -> CommandOutput:
    """Show in which time zone an organization's periods end; change it from the next period on."""
    if zone is None:
        return described(await run.api.time_zone(organization))
    return described(await run.api.change_time_zone(organization, zone))


@platform_command(organizations, "tax")
async def tax(
    run: CommandRun,
    organization: Organization,
    jurisdiction: Annotated[
        str | None, typer.Argument(help="To change it: ISO 3166, such as DE or US-CA; or `none`.")
    ] = None,
    exemption: Annotated[str, typer.Option(help="none, exempt or reverse_charge.")] = "none",
    reason: Annotated[str, typer.Option(help="Of the exemption: the number of a certificate, or the like.")] = "",
) -> CommandOutput:
    """Show where an organization pays tax; change it for all of its open periods."""
    if jurisdiction is None:
        return described(await run.api.tax_profile(organization))
    place = None if jurisdiction == NO_LIMIT else jurisdiction
    return described(
        await run.api.change_tax_profile(organization, jurisdiction=place, exemption=exemption, reason=reason)
    )


@platform_command(organizations, "periods")
async def list_periods(run: CommandRun, organization: Organization) -> CommandOutput:
    """List an organization's billing periods, the newest first."""
    found = await run.api.periods(organization)
    rows = [(one.id, one.state, moment_ms(one.start_ms), moment_ms(one.end_ms)) for one in found]
    return CommandOutput(found, table(("PERIOD", "STATE", "FROM", "UNTIL"), rows, empty="Nothing was charged yet."))


@platform_command(plans, "create")
@with_limit_options
async def create_plan(
    run: CommandRun,
    name: Annotated[str, typer.Argument(help="Small letters, digits and hyphens.")],
    weight: Annotated[int, typer.Option(help="The share of busy replicas.")] = 1,
    model: Models = None,
    *,
    price_multiplier: Multiplier = None,
    service_tier: Tiers = None,
    share: Share = None,
    pinned: Pinned = None,
    training: TrainingLimitOptions = None,
    fee: MonthlyFee = None,
    minimum: MonthlyMinimum = None,
    changes: LimitsInfo,
) -> CommandOutput:
    """Make a plan; without models it is for all of them."""
    plan = PlanInfo(
        name=name,
        weight=weight,
        limits=changes,
        models=model,
        price_multiplier=price_multiplier or "1",
        service_tiers=tier_changes(service_tier),
        local_share=None if share is None else local_share(share),
        pinned_adapters=pinned or 0,
        training=training_limits(training or []),
        monthly_fee_dollars=fee or "0",
        monthly_minimum_dollars=minimum or "0",
    )
    return described(await run.api.create_plan(plan))


@platform_command(plans, "list")
async def list_plans(run: CommandRun) -> CommandOutput:
    """List all plans."""
    found = [plan async for plan in run.api.plans()]
    rows = [
        (
            *(plan.name, plan.id, plan.weight, plan.price_multiplier),
            *(plan.monthly_fee_dollars, plan.monthly_minimum_dollars, ", ".join(plan.models or ["all"])),
        )
        for plan in found
    ]
    return CommandOutput(found, table(("NAME", "ID", "WEIGHT", "PRICES", "FEE", "MINIMUM", "MODELS"), rows))


@platform_command(plans, "show")
async def show_plan(run: CommandRun, plan: Plan) -> CommandOutput:
    """Show one plan and its limits."""
    return described(await run.api.plan(plan))


@platform_command(plans, "change")
@with_limit_options
async def change_plan(
    run: CommandRun,
    plan: Plan,
    weight: Annotated[int | None, typer.Option(help="The share of busy replicas.")] = None,
    model: Models = None,
    *,
    price_multiplier: Multiplier = None,
    service_tier: Tiers = None,
    share: Share = None,
    pinned: Pinned = None,
    training: TrainingLimitOptions = None,
    fee: MonthlyFee = None,
    minimum: MonthlyMinimum = None,
    changes: LimitsInfo,
) -> CommandOutput:
    """Change what is given for every organization on the plan: prices in 15 minutes, all else at once.

    `--model '*'` is every model.
    """
    given: dict[str, object] = {
        "weight": weight,
        "models": model,
        "price_multiplier": price_multiplier,
        "service_tiers": tier_changes(service_tier) or None,
        "pinned_adapters": pinned,
        "training": training_limits(training) if training else None,
        "limits": changes if changes.model_fields_set else None,
        "monthly_fee_dollars": fee,
        "monthly_minimum_dollars": minimum,
    }
    stated = {name: value for name, value in given.items() if value is not None}
    if share is not None:
        stated["local_share"] = local_share(share)
    return described(await run.api.change_plan(plan, PlanInfo.model_validate(stated)))


@platform_command(plans, "delete")
async def delete_plan(run: CommandRun, plan: Plan) -> CommandOutput:
    """Delete a plan that no organization is on."""
    return CommandOutput(await run.api.delete_plan(plan), f"The plan {plan} is deleted.")


@platform_command(projects, "create")
async def create_project(run: CommandRun, organization: Organization, name: Name) -> CommandOutput:
    """Create a project."""
    owner = await run.organization(organization)
    return described(await run.api.create_project(owner.id, name))


@platform_command(projects, "list")
async def list_projects(run: CommandRun, organization: Organization) -> CommandOutput:
    """List an organization's projects."""
    owner = await run.organization(organization)
    found = [project async for project in run.api.projects(owner.id)]
    rows = [(project.name, project.id, project.status, moment(project.created_at)) for project in found]
    return CommandOutput(found, table(("NAME", "ID", "STATUS", "CREATED"), rows))


@platform_command(projects, "limits")
@with_limit_options
async def project_limits(
    run: CommandRun,
    organization: Organization,
    project: Annotated[str, typer.Argument(help="Its id or name.")],
    changes: LimitsInfo,
) -> CommandOutput:
    """Show a project's limits; change those that are given."""
    owner = await run.organization(organization)
    found = await find_project(run, owner.id, project)
    if changes.model_fields_set:
        found = await run.api.limit_project(owner.id, found.id, changes)
    return described(found.limits)


async def find_project(run: CommandRun, organization: str, reference: str) -> ProjectInfo:
    """Return the project with this id or name."""
    found = [project async for project in run.api.projects(organization)]
    for project in found:
        if reference in (project.id, project.name):
            return project
    names = ", ".join(sorted(repr(project.name) for project in found))
    raise CommandFailed(f"No project is called {reference!r}. There are: {names}.")
