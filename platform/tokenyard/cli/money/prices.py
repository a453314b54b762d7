"""`tokenyard prices`: the rate cards of the installation."""

import time
from pathlib import Path
from typing import Annotated

import msgspec
import typer

from tokenyard.cli.command import CommandFailed, CommandRun, platform_command
from tokenyard.cli.output import CommandOutput, moment_ms, table
from tokenyard_billing.pricing.rate_cards import InvalidRateCard, read_card_file

prices = typer.Typer(help="Rate cards: dated, and never changed once published.", no_args_is_help=True)


@platform_command(prices, "list")
async def listing(run: CommandRun) -> CommandOutput:
    """List the rate cards, the last to start first."""
    found = [card async for card in run.api.rate_cards()]
    now_ms = time.time() * 1000
    started = [card.id for card in found if card.effective_from_ms <= now_ms]
    states = dict.fromkeys(started, "superseded") | dict.fromkeys(started[:1], "in force")
    rows = [
        (
            *(card.version, moment_ms(card.effective_from_ms), states.get(card.id, "to come")),
            *(moment_ms(card.published_at_ms), card.published_by, card.source),
        )
        for card in found
    ]
    return CommandOutput(found, table(("VERSION", "STARTS", "STATE", "PUBLISHED", "BY", "FROM"), rows))


@platform_command(prices, "publish")
async def publish(
    run: CommandRun,
    file: Annotated[Path, typer.Argument(help="A card like those in billing/prices.", exists=True, dir_okay=False)],
) -> CommandOutput:
    """Publish a rate card from a YAML file; the same card again changes nothing."""
    try:
        stated = read_card_file(file)
    except InvalidRateCard as error:
        raise CommandFailed(str(error)) from None
    card = await run.api.publish_rate_card(msgspec.to_builtins(stated))
    return CommandOutput(card, f"Rate card {card.version} is in force from {moment_ms(card.effective_from_ms)} UTC.")
