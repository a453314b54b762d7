"""One run of a command against a running platform: where it is, who asks, and how the answer is printed."""

import difflib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import quote

from tokenyard.cli.api import Api, ApiFailed
from tokenyard.cli.operator_door import NoDatabase, operator_key
from tokenyard.cli.output import as_json, write
from tokenyard.settings import Settings
from tokenyard.stack.installation import load_settings, local_url


class CommandFailed(Exception):
    """The command cannot do what was asked; the message says why and what to do."""


class Call:
    """What every command that talks to the platform gets."""

    def __init__(self, settings: Settings, api: Api, *, json: bool) -> None:
        self.settings = settings
        self.api = api
        self.json = json

    async def organization(self, reference: str) -> dict[str, Any]:
        """Return the organization with this id or slug.

        Raises:
            CommandFailed: there is none; the message lists similar ones.
        """
        try:
            found: dict[str, Any] = await self.api.get(f"/admin/organizations/{quote(reference, safe='')}")
        except ApiFailed as error:
            if error.status != 404:
                raise
            raise CommandFailed(await self._no_such_organization(reference)) from error
        return found

    async def _no_such_organization(self, reference: str) -> str:
        slugs = [organization["slug"] async for organization in self.api.every("/admin/organizations")]
        similar = difflib.get_close_matches(reference, slugs, n=3, cutoff=0.4)
        if similar:
            return f"No organization is called {reference!r}. Similar: {', '.join(similar)}."
        known = ", ".join(sorted(slugs)[:10]) or "none yet; make one with `tokenyard org create`"
        return f"No organization is called {reference!r}. There are: {known}."

    def emit(self, data: Any, text: str) -> None:
        """Print one of several answers, as it comes."""
        write(as_json(data) if self.json else text)


@asynccontextmanager
async def calling(*, url: str | None, admin_key: str | None, json: bool) -> AsyncIterator[Call]:
    """Open a call: with the given key, or with one of the command's own where this machine has the database.

    Raises:
        CommandFailed: no key was given and none can be made.
    """
    settings = load_settings()
    base_url = url or local_url(settings, settings.gateway_port)
    try:
        async with operator_key(admin_key, settings) as key:
            if key is None:
                raise CommandFailed(
                    "No admin key: give --admin-key or TOKENYARD_ADMIN_KEY, or run this on the machine whose"
                    f" `tokenyard up` keeps its data in {settings.data_dir}."
                )
            async with Api(base_url, key) as api:
                yield Call(settings, api, json=json)
    except NoDatabase as error:
        raise CommandFailed(str(error)) from error
