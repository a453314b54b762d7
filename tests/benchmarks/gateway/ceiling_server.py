"""What one Python core can do at best: raw ASGI on uvicorn, an HMAC of the key, the body read and written anew, and two
small scripts in Redis, before and after the model server.

`python ceiling_server.py <port> <model server's URL> <Redis URL>`.
"""

import hashlib
import hmac
import sys

import aiohttp
import orjson
import redis.asyncio as redis
import uvicorn
from starlette.types import Receive, Scope, Send

TAKE = "local n = redis.call('INCRBY', KEYS[1], ARGV[1]) redis.call('PEXPIRE', KEYS[1], 60000) return n"
GIVE = """
redis.call('DECRBY', KEYS[1], ARGV[1])
return redis.call('XADD', KEYS[2], 'MAXLEN', '~', 1000, '*', 'event', ARGV[2])
"""


class Ceiling:
    def __init__(self, server: str, redis_url: str) -> None:
        self._server = server
        self._redis = redis.from_url(redis_url)
        self._take = self._redis.register_script(TAKE)
        self._give = self._redis.register_script(GIVE)
        self._http: aiohttp.ClientSession | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        if self._http is None:
            self._http = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0))
        raw = b""
        while True:
            message = await receive()
            raw += message.get("body", b"")
            if not message.get("more_body"):
                break
        headers = dict(scope["headers"])
        key = hmac.new(b"pepper", headers[b"authorization"], hashlib.sha256).hexdigest()
        body = orjson.loads(raw)
        body |= {"user": key, "stream_options": None}
        await self._take(keys=[f"ceiling:{key}"], args=[16])
        async with self._http.post(self._server + scope["path"], data=orjson.dumps(body)) as answer:
            content = await answer.read()
        usage = orjson.loads(content)["usage"]
        await self._give(keys=[f"ceiling:{key}", "ceiling:usage"], args=[16, orjson.dumps(usage)])
        length = str(len(content)).encode()
        told = [(b"content-type", b"application/json"), (b"content-length", length)]
        await send({"type": "http.response.start", "status": answer.status, "headers": told})
        await send({"type": "http.response.body", "body": content})


if __name__ == "__main__":
    port, server, redis_url = sys.argv[1:]
    uvicorn.run(
        Ceiling(server, redis_url),
        host="127.0.0.1",
        port=int(port),
        loop="uvloop",
        http="httptools",
        log_level="warning",
        access_log=False,
        lifespan="off",
    )
