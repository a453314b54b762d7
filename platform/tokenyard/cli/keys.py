"""`tokenyard key`: tenants' API keys, and with `--operator` the operators' own."""

from typing import Annotated, Any

import typer

from tokenyard.cli.call import Call, CommandFailed
from tokenyard.cli.command import platform_command
from tokenyard.cli.organizations import find_project
from tokenyard.cli.output import Shown, moment, table

keys = typer.Typer(help="API keys.", no_args_is_help=True)

Owner = Annotated[str | None, typer.Argument(help="The organization's id or slug.")]
OfOperator = Annotated[bool, typer.Option("--operator", help="An operator's key instead of a tenant's.")]

_OPERATOR_KEYS = "/admin/operator_keys"


@platform_command(keys, "create")
async def create(
    call: Call,
    organization: Owner = None,
    *,
    name: Annotated[str, typer.Option(help="What it is for.")] = "made on the command line",
    project: Annotated[str | None, typer.Option(help="Id or name; default: its default project.")] = None,
    expires_in_days: Annotated[int | None, typer.Option(min=1, max=365)] = None,
    operator: OfOperator = False,
) -> Shown:
    """Make a key. It is shown once; only its hash is stored."""
    body: dict[str, Any] = {"name": name}
    if expires_in_days is not None:
        body["expires_in_seconds"] = expires_in_days * 86_400
    path = _OPERATOR_KEYS
    if not operator:
        owner = await call.organization(_required(organization))
        path = f"/admin/organizations/{owner['id']}/api_keys"
        if project is not None:
            body["project"] = (await find_project(call, owner["id"], project))["id"]
    made = await call.api.post(path, body)
    return Shown(made, f"{made['value']}\nIts id is {made['id']}. The key is shown once; keep it.")


@platform_command(keys, "list")
async def listing(call: Call, organization: Owner = None, operator: OfOperator = False) -> Shown:
    """List keys; of each only the end is known."""
    if operator:
        found = (await call.api.get(_OPERATOR_KEYS))["data"]
    else:
        owner = await call.organization(_required(organization))
        found = [key async for key in call.api.every(f"/admin/organizations/{owner['id']}/api_keys")]
    rows = [
        {**key, **{field: moment(key[field]) for field in ("created_at", "expires_at", "revoked_at")}} for key in found
    ]
    columns = {
        "name": "NAME",
        "redacted_value": "KEY",
        "id": "ID",
        "created_at": "CREATED",
        "expires_at": "EXPIRES",
        "revoked_at": "REVOKED",
    }
    return Shown(found, table(rows, columns))


@platform_command(keys, "revoke")
async def revoke(
    call: Call,
    key: Annotated[str, typer.Argument(help="The key's id, key_...")],
    organization: Annotated[str | None, typer.Option(help="Its organization; else it is looked for.")] = None,
    operator: OfOperator = False,
) -> Shown:
    """End a key at once, for ever."""
    if operator:
        path = f"{_OPERATOR_KEYS}/{key}"
    else:
        owner = await call.organization(organization) if organization else await _owner_of(call, key)
        path = f"/admin/organizations/{owner['id']}/api_keys/{key}"
    return Shown(await call.api.delete(path), f"{key} is revoked.")


async def _owner_of(call: Call, key: str) -> dict[str, Any]:
    async for organization in call.api.every("/admin/organizations"):
        async for candidate in call.api.every(f"/admin/organizations/{organization['id']}/api_keys"):
            if candidate["id"] == key:
                return organization
    raise CommandFailed(f"No organization has a key {key}. For an operator's key, add --operator.")


def _required(organization: str | None) -> str:
    if organization is None:
        raise CommandFailed("Whose key? Name the organization, or add --operator.")
    return organization
