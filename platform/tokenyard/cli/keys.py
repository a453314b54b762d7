"""`tokenyard key`: tenants' API keys, and with `--operator` the operators' own."""

from typing import Annotated

import typer

from tokenyard.cli.command import CommandFailed, CommandRun, platform_command
from tokenyard.cli.organizations import find_project, with_limit_options
from tokenyard.cli.output import CommandOutput, described, moment, table
from tokenyard.clients.platform_api.shapes import KeyRulesInfo, LimitsInfo

keys = typer.Typer(help="API keys.", no_args_is_help=True)

Owner = Annotated[str | None, typer.Argument(help="The organization's id or slug.")]
KeyId = Annotated[str, typer.Argument(help="The key's id, key_...")]
OfOrganization = Annotated[str | None, typer.Option("--organization", help="Its organization; else it is looked for.")]
OfOperator = Annotated[bool, typer.Option("--operator", help="An operator's key instead of a tenant's.")]


@platform_command(keys, "create")
async def create(
    run: CommandRun,
    organization: Owner = None,
    *,
    name: Annotated[str, typer.Option(help="What it is for.")] = "made on the command line",
    project: Annotated[str | None, typer.Option(help="Id or name; default: its default project.")] = None,
    expires_in_days: Annotated[int | None, typer.Option(min=1, max=365)] = None,
    scope: Annotated[list[str] | None, typer.Option(help="What it is for; may be given again. Default: all.")] = None,
    model: Annotated[list[str] | None, typer.Option(help="A model it may use; may be given again.")] = None,
    address: Annotated[
        list[str] | None, typer.Option(help="A network it may be used from, such as 10.0.0.0/8.")
    ] = None,
    operator: OfOperator = False,
) -> CommandOutput:
    """Make a key. It is shown once; only its hash is stored."""
    expires_in_s = None if expires_in_days is None else expires_in_days * 86_400
    rules = KeyRulesInfo(scopes=scope, models=model, addresses=address)
    if operator:
        if scope or model or address:
            raise CommandFailed("--scope, --model and --address are for tenants' keys.")
        made = await run.api.create_operator_key(name=name, expires_in_s=expires_in_s)
    else:
        owner = await _owner(run, organization)
        found = None if project is None else (await find_project(run, owner, project)).id
        made = await run.api.create_key(owner, name=name, project=found, expires_in_s=expires_in_s, rules=rules)
    return CommandOutput(made, f"{made.value}\nIts id is {made.id}. The key is shown once; keep it.")


@platform_command(keys, "list")
async def listing(run: CommandRun, organization: Owner = None, operator: OfOperator = False) -> CommandOutput:
    """List keys; of each only the end is known."""
    if operator:
        found = await run.api.operator_keys()
    else:
        found = [key async for key in run.api.keys(await _owner(run, organization))]
    rows = [
        (key.name, key.redacted_value, key.id, *map(moment, (key.created_at, key.expires_at, key.revoked_at)))
        for key in found
    ]
    return CommandOutput(found, table(("NAME", "KEY", "ID", "CREATED", "EXPIRES", "REVOKED"), rows))


@platform_command(keys, "limits")
@with_limit_options
async def limits(
    run: CommandRun, key: KeyId, organization: OfOrganization = None, *, changes: LimitsInfo
) -> CommandOutput:
    """Show a tenant's key's limits; change those that are given."""
    owner = await _owner_of(run, key, organization)
    if changes.model_fields_set:
        found = await run.api.limit_key(owner, key, changes)
    else:
        found = await run.api.key(owner, key)
    return described(found.limits)


@platform_command(keys, "revoke")
async def revoke(
    run: CommandRun, key: KeyId, organization: OfOrganization = None, operator: OfOperator = False
) -> CommandOutput:
    """End a key at once, for ever."""
    if operator:
        ended = await run.api.revoke_operator_key(key)
    else:
        ended = await run.api.revoke_key(await _owner_of(run, key, organization), key)
    return CommandOutput(ended, f"{key} is revoked.")


async def _owner(run: CommandRun, organization: str | None) -> str:
    if organization is None:
        raise CommandFailed("Whose key? Name the organization, or add --operator.")
    return (await run.organization(organization)).id


async def _owner_of(run: CommandRun, key: str, organization: str | None) -> str:
    if organization is not None:
        return await _owner(run, organization)
    async for owner in run.api.organizations():
        async for candidate in run.api.keys(owner.id):
            if candidate.id == key:
                return owner.id
    raise CommandFailed(f"No organization has a key {key}. For an operator's key, add --operator.")
