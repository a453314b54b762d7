"""How an app is told that the client of a request has gone."""

from collections.abc import Callable

from starlette.types import Scope

LEAVING = "tokenyard.leaving"


def tell_of_leaving(scope: Scope, told: Callable[[], None] | None) -> None:
    """Have `told` called when the connection of the request ends, in place of what was to be called until now.

    Waiting for it by `receive`, as others do, takes a task of its own for each request.
    """
    scope["extensions"][LEAVING]["tell"](told)
