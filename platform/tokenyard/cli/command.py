"""Makes commands of functions: adds the options that all share, and turns failures into sentences and exit codes.

Exit codes: 0 done, 1 refused or failed, 2 wrong usage, 3 the gateway does not answer, 4 no such thing.
"""

import asyncio
import difflib
import inspect
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Annotated, Concatenate, ParamSpec

import typer

from tokenyard.cli.credentials import NoDatabase, operator_key
from tokenyard.cli.output import CommandOutput, as_json, write
from tokenyard.clients.platform_api.connection import ApiConnection, ApiFailed
from tokenyard.clients.platform_api.operator_api import OperatorApi
from tokenyard.clients.platform_api.shapes import OrganizationInfo
from tokenyard.settings import Settings
from tokenyard.stack.installation import StackFailed, load_settings

P = ParamSpec("P")

JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]
UrlOption = Annotated[
    str | None, typer.Option("--url", envvar="TOKENYARD_URL", help="The gateway's root; default: this machine's.")
]
AdminKeyOption = Annotated[
    str | None,
    typer.Option("--admin-key", envvar="TOKENYARD_ADMIN_KEY", help="Default: a short-lived one made in the database."),
]
_SHARED = {
    name: inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)
    for name, default, annotation in (
        ("json", False, JsonOption),
        ("url", None, UrlOption),
        ("admin_key", None, AdminKeyOption),
    )
}

REFUSED, NOT_RUNNING, NOT_FOUND = 1, 3, 4


class CommandFailed(Exception):
    """The command cannot do what was asked; the message says why and what to do."""


@dataclass(frozen=True)
class CommandRun:
    """What every command that talks to the platform gets."""

    settings: Settings
    url: str
    api: OperatorApi
    json: bool

    async def organization(self, reference: str) -> OrganizationInfo:
        """Return the organization with this id or slug; the `CommandFailed` of an unknown one lists similar ones."""
        try:
            return await self.api.organization(reference)
        except ApiFailed as error:
            if error.status != 404:
                raise
            slugs = [organization.slug async for organization in self.api.organizations()]
            raise CommandFailed(_no_such_organization(reference, slugs)) from error

    def emit(self, data: object, text: str) -> None:
        """Print one of several answers, as it comes."""
        write(as_json(data) if self.json else text)


Work = Callable[Concatenate[CommandRun, P], Awaitable[CommandOutput | None]]


def platform_command(app: typer.Typer, name: str) -> Callable[[Work[P]], Work[P]]:
    """Add `work`, whose first parameter is a `CommandRun`, to `app` with the options `--json --url --admin-key`."""

    def add(work: Work[P]) -> Work[P]:
        def command(*, json: bool, url: str | None, admin_key: str | None, **arguments: object) -> None:
            async def run() -> None:
                async with _opened(url=url, admin_key=admin_key, json=json) as opened:
                    answer = await work(opened, **arguments)  # type: ignore[arg-type, call-arg]
                    if answer is not None:
                        opened.emit(answer.data, answer.text)

            guarded(lambda: asyncio.run(run()))

        own = list(inspect.signature(work).parameters.values())[1:]
        set_signature(command, [*own, *_SHARED.values()])
        command.__doc__ = work.__doc__
        app.command(name)(command)
        return work

    return add


def set_signature(function: Callable[..., object], parameters: Sequence[inspect.Parameter]) -> None:
    """Let typer see these parameters instead of the function's own."""
    function.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    function.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}


def guarded(work: Callable[[], None]) -> None:
    """Run `work`; end the program with one clear sentence where it fails in a way that we know."""
    try:
        work()
    except ApiFailed as error:
        hint = " Start it with `tokenyard up`, or say where it is with --url or TOKENYARD_URL."
        end(f"{error}{'' if error.status else hint}", {0: NOT_RUNNING, 404: NOT_FOUND}.get(error.status, REFUSED))
    except (CommandFailed, NoDatabase, StackFailed) as error:
        end(str(error), REFUSED)
    except KeyboardInterrupt:
        end("Interrupted.", 130)


def end(message: str, status: int) -> None:
    """Leave with a message: it raises `typer.Exit`."""
    sys.stderr.write(f"tokenyard: {message}\n")
    raise typer.Exit(status)


@asynccontextmanager
async def _opened(*, url: str | None, admin_key: str | None, json: bool) -> AsyncIterator[CommandRun]:
    """Open a run: with the given key, or with one of its own where this machine has the database."""
    settings = load_settings()
    async with operator_key(admin_key, settings) as key, ApiConnection(url or settings.effective_api_url) as connection:
        if key is None:
            raise CommandFailed(
                "No admin key: give --admin-key or TOKENYARD_ADMIN_KEY, or run this on the machine whose"
                f" `tokenyard up` keeps its data in {settings.data_dir}."
            )
        yield CommandRun(settings, connection.url, OperatorApi(connection, key), json)


def _no_such_organization(reference: str, slugs: Sequence[str]) -> str:
    similar = difflib.get_close_matches(reference, slugs, n=3, cutoff=0.4)
    if similar:
        return f"No organization is called {reference!r}. Similar: {', '.join(similar)}."
    known = ", ".join(sorted(slugs)[:10]) or "none yet; make one with `tokenyard org create`"
    return f"No organization is called {reference!r}. There are: {known}."
