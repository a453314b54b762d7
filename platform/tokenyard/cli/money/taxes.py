"""`tokenyard tax`: what jurisdictions take."""

from datetime import UTC, datetime
from typing import Annotated

import typer

from tokenyard.cli.command import CommandRun, platform_command
from tokenyard.cli.output import CommandOutput, moment_ms, table
from tokenyard.clients.platform_api.tax_shapes import TaxRateInfo

tax = typer.Typer(help="Taxes on what is used.", no_args_is_help=True)
rates = typer.Typer(help="Rates of tax: dated, and never changed once published.", no_args_is_help=True)
tax.add_typer(rates, name="rates")


@platform_command(rates, "list")
async def listing(run: CommandRun) -> CommandOutput:
    """List the rates of tax, the last to start first."""
    found = [one async for one in run.api.tax_rates()]
    rows = [
        (
            one.jurisdiction,
            one.name,
            f"{one.percent} %",
            _where(one),
            moment_ms(one.effective_from_ms),
            one.published_by,
        )
        for one in found
    ]
    return CommandOutput(found, table(("JURISDICTION", "NAME", "RATE", "STANDS", "STARTS", "BY"), rows))


@platform_command(rates, "add")
async def add(
    run: CommandRun,
    jurisdiction: Annotated[
        str, typer.Argument(help="ISO 3166: DE, or US-CA; a region's rate goes before its country's.")
    ],
    percent: Annotated[str, typer.Argument(help="Such as 19 or 8.875.")],
    name: Annotated[str, typer.Option(help="As invoices name it, such as VAT.")],
    *,
    inclusive: Annotated[bool, typer.Option("--inclusive", help="Prices hold the tax already.")] = False,
    starts: Annotated[datetime | None, typer.Option("--from", help="In UTC; default: now.")] = None,
) -> CommandOutput:
    """Publish what a jurisdiction takes, until its next rate."""
    rate: dict[str, object] = {"jurisdiction": jurisdiction, "name": name, "percent": percent, "inclusive": inclusive}
    if starts is not None:
        rate["effective_from_ms"] = round(starts.replace(tzinfo=UTC).timestamp() * 1000)
    made = await run.api.publish_tax_rate(rate)
    words = f"{made.name} of {made.jurisdiction} is {made.percent} % {_where(made)}"
    return CommandOutput(made, f"{words} from {moment_ms(made.effective_from_ms)} UTC on.")


def _where(rate: TaxRateInfo) -> str:
    return "in prices" if rate.inclusive else "on top"
