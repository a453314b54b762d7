"""Makes commands of functions: adds the options that all share, and turns failures into sentences and exit codes.

Exit codes: 0 done, 1 refused or failed, 2 wrong usage, 3 the gateway does not answer, 4 no such thing.
"""

import asyncio
import inspect
import sys
from collections.abc import Awaitable, Callable
from typing import Annotated, Any, Concatenate, ParamSpec

import typer

from tokenyard.cli.api import ApiFailed
from tokenyard.cli.call import Call, CommandFailed, calling
from tokenyard.cli.output import Shown, as_json, write
from tokenyard.stack.installation import StackFailed

P = ParamSpec("P")

JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]
UrlOption = Annotated[
    str | None, typer.Option("--url", envvar="TOKENYARD_URL", help="The gateway's root; default: this machine's.")
]
AdminKeyOption = Annotated[
    str | None,
    typer.Option("--admin-key", envvar="TOKENYARD_ADMIN_KEY", help="Default: a short-lived one made in the database."),
]
_SHARED = {"json": (JsonOption, False), "url": (UrlOption, None), "admin_key": (AdminKeyOption, None)}

REFUSED, NOT_RUNNING, NOT_FOUND = 1, 3, 4

Work = Callable[Concatenate[Call, P], Awaitable[Shown | None]]


def platform_command(app: typer.Typer, name: str) -> Callable[[Work[P]], Work[P]]:
    """Add `work`, whose first parameter is a `Call`, to `app` with the shared options `--json --url --admin-key`."""

    def add(work: Work[P]) -> Work[P]:
        def run(**arguments: Any) -> None:
            shared = {option: arguments.pop(option) for option in _SHARED}

            async def call() -> None:
                async with calling(**shared) as opened:
                    answer = await work(opened, **arguments)  # type: ignore[call-arg]
                    if answer is not None:
                        write(as_json(answer.data) if opened.json else answer.text)

            guarded(lambda: asyncio.run(call()))

        own = list(inspect.signature(work).parameters.values())[1:]
        shared = [
            inspect.Parameter(option, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)
            for option, (annotation, default) in _SHARED.items()
        ]
        run.__signature__ = inspect.Signature([*own, *shared])  # type: ignore[attr-defined]
        run.__annotations__ = {parameter.name: parameter.annotation for parameter in (*own, *shared)}
        run.__doc__ = work.__doc__
        app.command(name)(run)
        return work

    return add


def guarded(work: Callable[[], None]) -> None:
    """Run `work`; end the program with one clear sentence where it fails in a way that we know."""
    try:
        work()
    except ApiFailed as error:
        end(str(error), {0: NOT_RUNNING, 404: NOT_FOUND}.get(error.status, REFUSED))
    except CommandFailed as error:
        end(str(error), REFUSED)
    except StackFailed as error:
        end(str(error), REFUSED)
    except KeyboardInterrupt:
        end("Interrupted.", 130)


def end(message: str, status: int) -> None:
    """Leave with a message.

    Raises:
        typer.Exit: always.
    """
    sys.stderr.write(f"tokenyard: {message}\n")
    raise typer.Exit(status)
