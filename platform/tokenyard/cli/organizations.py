"""`tokenyard org` and `tokenyard project`."""

import re
from typing import Annotated, Any

import typer

from tokenyard.cli.call import Call, CommandFailed
from tokenyard.cli.command import platform_command
from tokenyard.cli.limit_options import (
    Concurrency,
    MonthlySpend,
    RequestsPerDay,
    RequestsPerMinute,
    TokensPerDay,
    TokensPerMinute,
    limits_body,
)
from tokenyard.cli.output import Shown, details, moment, table

organizations = typer.Typer(help="Organizations: the tenants.", no_args_is_help=True)
projects = typer.Typer(help="Projects of an organization.", no_args_is_help=True)

Organization = Annotated[str, typer.Argument(help="Its id or slug.")]
Name = Annotated[str, typer.Argument(help="What people call it.")]


def slug_of(name: str) -> str:
    """Return a slug made of a name: `Acme Corp.` gives `acme-corp`."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:40].rstrip("-")


def shown_organization(organization: dict[str, Any]) -> Shown:
    times = {"created_at": moment(organization["created_at"]), "archived_at": moment(organization["archived_at"])}
    return Shown(organization, details({**organization, **times}))


@platform_command(organizations, "create")
async def create(
    call: Call,
    name: Name,
    slug: Annotated[str | None, typer.Option(help="Part of its models' names; default: made of the name.")] = None,
    weight: Annotated[int, typer.Option(help="Its share of busy replicas, against others'.")] = 1,
) -> Shown:
    """Create an organization; it gets the stated opening credit."""
    body = {"name": name, "slug": slug or slug_of(name), "weight": weight}
    return shown_organization(await call.api.post("/admin/organizations", body))


@platform_command(organizations, "list")
async def listing(call: Call) -> Shown:
    """List all organizations."""
    found = [organization async for organization in call.api.every("/admin/organizations")]
    rows = [{**organization, "created_at": moment(organization["created_at"])} for organization in found]
    columns = {"slug": "SLUG", "name": "NAME", "id": "ID", "created_at": "CREATED"}
    return Shown(found, table(rows, columns, empty="No organizations yet; make one with `tokenyard org create`."))


@platform_command(organizations, "show")
async def show(call: Call, organization: Organization) -> Shown:
    """Show one organization and its limits."""
    return shown_organization(await call.organization(organization))


@platform_command(organizations, "limits")
async def limits(
    call: Call,
    organization: Organization,
    *,
    requests_per_minute: RequestsPerMinute = None,
    tokens_per_minute: TokensPerMinute = None,
    requests_per_day: RequestsPerDay = None,
    tokens_per_day: TokensPerDay = None,
    concurrency: Concurrency = None,
    monthly_spend: MonthlySpend = None,
) -> Shown:
    """Show an organization's limits; change those that are given."""
    wanted = limits_body(
        requests_per_minute=requests_per_minute,
        tokens_per_minute=tokens_per_minute,
        requests_per_day=requests_per_day,
        tokens_per_day=tokens_per_day,
        concurrency=concurrency,
        monthly_spend=monthly_spend,
    )
    found = await call.organization(organization)
    if wanted:
        found = await call.api.patch(f"/admin/organizations/{found['id']}", {"limits": wanted})
    return Shown(found["limits"], details(found["limits"]))


@platform_command(projects, "create")
async def create_project(call: Call, organization: Organization, name: Name) -> Shown:
    """Create a project."""
    owner = await call.organization(organization)
    project = await call.api.post(f"/admin/organizations/{owner['id']}/projects", {"name": name})
    return Shown(project, details({**project, "created_at": moment(project["created_at"])}))


@platform_command(projects, "list")
async def list_projects(call: Call, organization: Organization) -> Shown:
    """List an organization's projects."""
    found = await projects_of(call, organization)
    rows = [{**project, "created_at": moment(project["created_at"])} for project in found]
    return Shown(found, table(rows, {"name": "NAME", "id": "ID", "status": "STATUS", "created_at": "CREATED"}))


@platform_command(projects, "limits")
async def project_limits(
    call: Call,
    organization: Organization,
    project: Annotated[str, typer.Argument(help="Its id or name.")],
    *,
    requests_per_minute: RequestsPerMinute = None,
    tokens_per_minute: TokensPerMinute = None,
    requests_per_day: RequestsPerDay = None,
    tokens_per_day: TokensPerDay = None,
    concurrency: Concurrency = None,
    monthly_spend: MonthlySpend = None,
) -> Shown:
    """Show a project's limits; change those that are given."""
    wanted = limits_body(
        requests_per_minute=requests_per_minute,
        tokens_per_minute=tokens_per_minute,
        requests_per_day=requests_per_day,
        tokens_per_day=tokens_per_day,
        concurrency=concurrency,
        monthly_spend=monthly_spend,
    )
    owner = await call.organization(organization)
    found = await find_project(call, owner["id"], project)
    if wanted:
        path = f"/admin/organizations/{owner['id']}/projects/{found['id']}"
        found = await call.api.patch(path, {"limits": wanted})
    return Shown(found["limits"], details(found["limits"]))


async def projects_of(call: Call, organization: str) -> list[dict[str, Any]]:
    owner = await call.organization(organization)
    return [project async for project in call.api.every(f"/admin/organizations/{owner['id']}/projects")]


async def find_project(call: Call, organization: str, reference: str) -> dict[str, Any]:
    """Return the project with this id or name.

    Raises:
        CommandFailed: there is none.
    """
    found = await projects_of(call, organization)
    for project in found:
        if reference in (project["id"], project["name"]):
            return project
    names = ", ".join(sorted(repr(project["name"]) for project in found))
    raise CommandFailed(f"No project is called {reference!r}. There are: {names}.")
