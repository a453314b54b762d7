"""`tokenyard seals`: the daily seals of charges and journal, and whether SQL still is what was sealed."""

from datetime import date, timedelta
from typing import Annotated

import typer

from tokenyard.cli.command import CommandFailed, CommandRun, platform_command
from tokenyard.cli.output import CommandOutput, moment_ms, table
from tokenyard.clients.platform_api.proof_shapes import SealDifferenceInfo

seals = typer.Typer(help="Daily seals of charges and journal.", no_args_is_help=True)


@platform_command(seals, "list")
async def listing(
    run: CommandRun, limit: Annotated[int, typer.Option(min=1, help="At most so many, the newest.")] = 31
) -> CommandOutput:
    """List the seals. Keep them elsewhere too: what was sealed cannot change then without showing."""
    found = []
    async for one in run.api.seals():
        found.append(one)
        if len(found) == limit:
            break
    rows = [(one.day, one.hash, one.organizations, moment_ms(one.sealed_at_ms)) for one in found]
    heads = ("DAY", "HASH", "ORGANIZATIONS", "SEALED AT")
    return CommandOutput({"object": "list", "data": found}, table(heads, rows, empty="No day was sealed yet."))


@platform_command(seals, "verify")
async def verify(
    run: CommandRun,
    first: Annotated[str | None, typer.Option(help="The first day, YYYY-MM-DD; default: the first that was.")] = None,
    last: Annotated[str | None, typer.Option(help="The last day; default: the newest.")] = None,
) -> CommandOutput:
    """Make seals anew from what stands in SQL; name the first day, and organization, that differs, and exit with 1."""
    days = rows = 0
    while True:
        found = await run.api.verify_seals(first=first, last=last)
        days, rows = days + found.days, rows + found.rows
        answer = found.model_copy(update={"days": days, "rows": rows})
        if found.difference is not None:
            run.emit(answer, f"{days - 1} days before it agree.\n{_named(found.difference)}")
            raise CommandFailed("What stands in SQL is not what was sealed; see above.")
        if not found.more or found.through is None:
            return CommandOutput(answer, f"{days} days agree, of {rows} charges and transactions.")
        first = (date.fromisoformat(found.through) + timedelta(days=1)).isoformat()


def _named(found: SealDifferenceInfo) -> str:
    where = found.day if found.organization is None else f"{found.day}, {found.organization}"
    return f"{found.name}: {where}: {found.detail}"
