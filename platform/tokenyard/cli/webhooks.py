"""`tokenyard webhooks`: what organizations are told by webhooks, and telling it again."""

from datetime import UTC, datetime
from typing import Annotated

import typer

from tokenyard.cli.command import CommandRun, platform_command
from tokenyard.cli.output import CommandOutput, moment_ms, table
from tokenyard.clients.platform_api.webhook_shapes import WebhookEndpointInfo, WebhookEventInfo

webhooks = typer.Typer(help="Webhooks of organizations.", no_args_is_help=True)

Owner = Annotated[str, typer.Argument(help="The organization's id or slug.")]
Endpoint = Annotated[str, typer.Argument(help="The endpoint's id, we_...")]
Event = Annotated[str, typer.Argument(help="The event's id, evt_...")]


@platform_command(webhooks, "list")
async def endpoints(run: CommandRun, organization: Owner) -> CommandOutput:
    """List the endpoints of an organization."""
    found = await run.api.webhook_endpoints((await run.organization(organization)).id)
    rows = [(one.id, one.name, one.url, ", ".join(one.event_types), _standing(one)) for one in found]
    return CommandOutput(found, table(("ENDPOINT", "NAME", "URL", "TYPES", "STANDS"), rows))


@platform_command(webhooks, "events")
async def events(
    run: CommandRun,
    organization: Owner,
    *,
    kind: Annotated[str | None, typer.Option("--type", help="Such as invoice.issued.")] = None,
    state: Annotated[str | None, typer.Option(help="waiting, delivered or failed.")] = None,
    endpoint: Annotated[str | None, typer.Option(help="Only what an endpoint is told.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=100)] = 20,
) -> CommandOutput:
    """List the newest events of an organization, and what became of them."""
    owner = await run.organization(organization)
    wanted = {"event_type": kind, "state": state, "webhook_endpoint_id": endpoint, "limit": limit}
    found = await run.api.webhook_events(owner.id, **wanted)
    rows = [(one.id, one.type, moment_ms(one.created_at * 1000), _deliveries(one)) for one in found]
    return CommandOutput(found, table(("EVENT", "TYPE", "HAPPENED", "TOLD"), rows))


@platform_command(webhooks, "show")
async def show(run: CommandRun, organization: Owner, event: Event) -> CommandOutput:
    """Show an event and every attempt to tell it."""
    found = await run.api.webhook_event((await run.organization(organization)).id, event)
    return CommandOutput(found, _event_text(found))


@platform_command(webhooks, "resend")
async def resend(run: CommandRun, organization: Owner, event: Event, endpoint: Endpoint) -> CommandOutput:
    """Send an event to one endpoint once more."""
    owner = await run.organization(organization)
    found = await run.api.resend_webhook_event(owner.id, event, endpoint)
    return CommandOutput(found, f"{found.id} is sent to {endpoint} once more.")


@platform_command(webhooks, "replay")
async def replay(
    run: CommandRun,
    organization: Owner,
    endpoint: Endpoint,
    since: Annotated[datetime, typer.Option(help="In UTC.")],
) -> CommandOutput:
    """Send an endpoint all events of its types since then that it did not get."""
    owner = await run.organization(organization)
    seconds = int(since.replace(tzinfo=UTC).timestamp())
    found = await run.api.replay_webhooks(owner.id, endpoint, since=seconds)
    more = " There are more: run it again." if found.has_more else ""
    return CommandOutput(found, f"{found.events} events are sent to {endpoint}.{more}")


@platform_command(webhooks, "disable")
async def disable(
    run: CommandRun,
    organization: Owner,
    endpoint: Endpoint,
    reason: Annotated[str, typer.Option(help="Why; its owner sees it.")] = "",
) -> CommandOutput:
    """Send an endpoint nothing more."""
    owner = await run.organization(organization)
    found = await run.api.switch_webhook_endpoint(owner.id, endpoint, enabled=False, reason=reason)
    return CommandOutput(found, f"{found.id} is disabled.")


@platform_command(webhooks, "enable")
async def enable(run: CommandRun, organization: Owner, endpoint: Endpoint) -> CommandOutput:
    """Send an endpoint what happens from now on."""
    owner = await run.organization(organization)
    found = await run.api.switch_webhook_endpoint(owner.id, endpoint, enabled=True)
    return CommandOutput(found, f"{found.id} is enabled.")


def _standing(endpoint: WebhookEndpointInfo) -> str:
    if endpoint.enabled:
        return "enabled"
    return f"disabled: {endpoint.disabled_reason}" if endpoint.disabled_reason else "disabled"


def _deliveries(event: WebhookEventInfo) -> str:
    return ", ".join(f"{one.webhook_endpoint_id} {one.state}" for one in event.deliveries)


def _event_text(event: WebhookEventInfo) -> str:
    rows = [
        (
            moment_ms(one.at_ms),
            one.webhook_endpoint_id,
            one.error if one.status_code is None else one.status_code,
            f"{one.duration_ms} ms",
            one.answer[:60],
        )
        for one in event.attempts
    ]
    attempts = table(("TRIED", "ENDPOINT", "ANSWER", "TOOK", "BEGAN"), rows, empty="Not tried yet.")
    return f"{event.type} {event.id}, {moment_ms(event.created_at * 1000)}: {_deliveries(event)}\n\n{attempts}"
