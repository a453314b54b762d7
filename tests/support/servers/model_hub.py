"""A stand-in of the Hugging Face hub: the part of its HTTP API by which its own client downloads a model."""

import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aiohttp import web
from aiohttp.test_utils import TestServer

COMMIT, OLDER = "b" * 40, "a" * 40
TOKEN = "hf_accepted"
BRANCH = "main"
_BIG = ".safetensors"


class ModelHub:
    """One repository, `owner/model`, at two commits. What it does wrong is set by a test."""

    repository = "owner/model"

    def __init__(self, files: dict[str, bytes], older: dict[str, bytes] | None = None) -> None:
        self.commits = {COMMIT: files, OLDER: older or {}}
        self.url = ""
        self.gated = False
        self.claimed_sizes: dict[str, int] = {}
        self.damaged: set[str] = set()
        self.refused: set[str] = set()
        """Files that are listed, and then answered with 500."""
        self.cut_after: dict[str, int] = {}
        """Files of which the first answer breaks after so many bytes."""
        self.asked: list[tuple[str, str | None]] = []
        """Each download that was asked for, with its `Range`."""

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        app = web.Application()
        app.router.add_get("/api/models/{owner}/{model}/revision/{revision}", self._info)
        app.router.add_get("/api/models/owner/model/tree/{revision}", self._tree)
        app.router.add_route("HEAD", "/owner/model/resolve/{revision}/{name:.+}", self._describe)
        app.router.add_get("/owner/model/resolve/{revision}/{name:.+}", self._send, allow_head=False)
        async with TestServer(app) as server:
            self.url = str(server.make_url("")).rstrip("/")
            yield

    def _refusal(self, request: web.Request) -> web.Response | None:
        asked_for = "{owner}/{model}".format_map({"owner": "owner", "model": "model", **request.match_info})
        if asked_for != self.repository:
            return web.json_response({"error": "none"}, status=404, headers={"X-Error-Code": "RepoNotFound"})
        if self.gated and request.headers.get("authorization") != f"Bearer {TOKEN}":
            return web.json_response({"error": "gated"}, status=401, headers={"X-Error-Code": "GatedRepo"})
        if self._commit(request) not in self.commits:
            return web.json_response({"error": "none"}, status=404, headers={"X-Error-Code": "RevisionNotFound"})
        return None

    def _commit(self, request: web.Request) -> str:
        revision = request.match_info["revision"]
        return COMMIT if revision == BRANCH else revision

    def _entry(self, name: str, content: bytes) -> dict[str, object]:
        size = self.claimed_sizes.get(name, len(content))
        git_hash = hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()
        entry: dict[str, object] = {"type": "file", "path": name, "rfilename": name, "size": size}
        entry |= {"oid": git_hash, "blobId": git_hash}
        if name.endswith(_BIG):
            digest = hashlib.sha256(content).hexdigest()
            entry["lfs"] = {"oid": digest, "sha256": digest, "size": size, "pointerSize": 130}
        return entry

    def _entries(self, request: web.Request) -> list[dict[str, object]]:
        return [self._entry(name, content) for name, content in self.commits[self._commit(request)].items()]

    async def _info(self, request: web.Request) -> web.Response:
        if refusal := self._refusal(request):
            return refusal
        commit = self._commit(request)
        return web.json_response({"id": self.repository, "sha": commit, "siblings": self._entries(request)})

    async def _tree(self, request: web.Request) -> web.Response:
        return self._refusal(request) or web.json_response(self._entries(request))

    def _headers(self, request: web.Request) -> dict[str, str]:
        entry = self._entry(request.match_info["name"], self._content(request))
        lfs = entry.get("lfs")
        etag = lfs["sha256"] if isinstance(lfs, dict) else entry["oid"]
        return {"ETag": f'"{etag}"', "X-Repo-Commit": self._commit(request), "Accept-Ranges": "bytes"}

    def _content(self, request: web.Request) -> bytes:
        return self.commits[self._commit(request)][request.match_info["name"]]

    async def _describe(self, request: web.Request) -> web.Response:
        length = {"Content-Length": str(len(self._content(request)))}
        return self._refusal(request) or web.Response(headers={**self._headers(request), **length})

    async def _send(self, request: web.Request) -> web.StreamResponse:
        name, asked = request.match_info["name"], request.headers.get("range")
        self.asked.append((name, asked))
        if refusal := self._refusal(request):
            return refusal
        if name in self.refused:
            return web.Response(status=500)
        content = self._content(request)
        if name in self.damaged:
            content = content[:-1] + bytes([content[-1] ^ 1])
        start = int(asked.removeprefix("bytes=").partition("-")[0]) if asked else 0
        headers = {**self._headers(request), "Content-Length": str(len(content) - start)}
        if asked:
            headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        reply = web.StreamResponse(status=206 if asked else 200, headers=headers)
        await reply.prepare(request)
        cut = self.cut_after.pop(name, None)
        await reply.write(content[start:cut])
        if cut is not None and request.transport is not None:
            request.transport.close()
        return reply
