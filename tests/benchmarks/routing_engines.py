"""Real vLLM engines behind what a replica's front says of its load, and gateways that choose between them.

Each request is of one of a few organizations, half of them with a fine-tuned model of their own, and begins with one
of its organization's prefixes. All of them together are more than one engine can keep.
"""

import asyncio
import itertools
import json
import random
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
import msgspec
from starlette.types import ASGIApp, Receive, Scope, Send

from benchmarks.fairness_engines import engine, model_folder
from benchmarks.fairness_load import ENDS, digits, percentile
from support.adapters.random_adapters import write_random_adapter
from support.fakes.gateway_ports import KnownReplicas
from support.routing.modelled_serving import LOOK_EVERY_S, Policy, policies
from support.servers.whole_stack import MODEL
from tokenyard.core.ids import OrganizationId
from tokenyard.core.replica import LOAD_HEADER, STATS_PATH, Replica, ReplicaLoad, ReplicaState
from tokenyard.gateway.path.route import RoutedRequest
from tokenyard_deployments.serving.front.exchange import Exchange
from tokenyard_deployments.serving.front.request_body import read_body

ENGINES, GATEWAYS, STREAMS, SLOTS = 2, 2, 6, 32
ORGANIZATIONS, PREFIXES, PREFIX_DIGITS, ANSWER_TOKENS = 8, 2, 150, 8
ROUNDS, REQUESTS = 2, 64
MEMORY_BYTES, CONTEXT = 64 * 1024 * 1024, 2048  # so that 2,900 tokens are kept; the prefixes are 4,800


class LoadTold:
    """Around vLLM's server: what the front of a replica says of its load, in every answer and when it is asked."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._inside: dict[Exchange, int] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"] == STATS_PATH:
            await self._state(send)
        elif scope["type"] != "http" or scope["method"] != "POST":
            await self._app(scope, receive, send)
        else:
            body = await read_body(receive)
            exchange = Exchange(body, receive, send, dead=lambda: False, load=self._load)
            self._inside[exchange] = len(body) // 2  # digits: a token is two bytes
            try:
                await self._app(scope, exchange.receive, exchange.send)
            finally:
                del self._inside[exchange]

    def _load(self) -> ReplicaLoad:
        waiting = sum(tokens for exchange, tokens in self._inside.items() if not exchange.started)
        return ReplicaLoad(len(self._inside), SLOTS, waiting)

    async def _state(self, send: Send) -> None:
        now = self._load()
        state = ReplicaState("", MODEL, (), now.sequences, 0, now.slots, now.waiting_tokens)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": msgspec.json.encode(state)})


@dataclass
class Served:
    """What came of one policy's requests."""

    waits_s: list[float] = field(default_factory=list)
    prompt_tokens: int = 0
    cached_tokens: int = 0

    @property
    def hit_rate(self) -> float:
        return self.cached_tokens / self.prompt_tokens

    def wait_ms(self, share: float) -> float:
        return 1000 * percentile(self.waits_s, share)


def measure(folder: Path) -> dict[str, Served]:
    """Return what comes of each policy; they take turns, each with prefixes that no engine has seen."""
    with ExitStack() as stack:
        urls = list(stack.enter_context(_engines(folder)))
        return asyncio.run(_measure(urls))


@contextmanager
def _engines(folder: Path) -> Iterator[Sequence[str]]:
    adapters = {f"ft:{at}": folder / f"adapter-{at}" for at in range(ORGANIZATIONS // 2)}
    for seed, place in enumerate(adapters.values()):
        write_random_adapter(model_folder(), place, seed)
    more = ["--middleware", f"{LoadTold.__module__}.{LoadTold.__name__}", "--enable-prompt-tokens-details"]
    more += [
        "--max-model-len",
        str(CONTEXT),
        "--lora-modules",
        *(f"{name}={place}" for name, place in adapters.items()),
    ]
    with ExitStack() as engines:
        yield [
            engines.enter_context(engine(folder / f"engine-{at}.log", fair=True, memory_bytes=MEMORY_BYTES, more=more))
            for at in range(ENGINES)
        ]


async def _measure(urls: Sequence[str]) -> dict[str, Served]:
    served = {name: Served() for name in policies(random.Random(0))}
    turns = itertools.permutations(served)
    patient = aiohttp.ClientTimeout(total=300)
    async with aiohttp.ClientSession(timeout=patient, connector=aiohttp.TCPConnector(limit=0)) as http:
        for number, turn in zip(range(-1, ROUNDS), turns, strict=False):
            for name in turn:
                round_ = _Round(http, urls, name, number)
                await round_.run(Served() if number < 0 else served[name], 2 * STREAMS if number < 0 else REQUESTS)
    return served


class _Round:
    """Some requests by one policy, `STREAMS` at a time, through gateways of which each knows its own."""

    def __init__(self, http: aiohttp.ClientSession, urls: Sequence[str], policy: str, number: int) -> None:
        self._http = http
        self._known = KnownReplicas([Replica(f"r{at}", MODEL, url) for at, url in enumerate(urls)])
        self._chance = random.Random(number)
        self._name = f"{policy} {number}"
        make = policies(self._chance)[policy]
        self._gateways = [make(self._known, time.monotonic) for _ in range(GATEWAYS)]

    async def run(self, served: Served, count: int) -> None:
        looking = asyncio.create_task(self._look())
        requests = [self._request(at) for at in range(count)]
        self._chance.shuffle(requests)
        left = iter(enumerate(requests))

        async def stream() -> None:
            for at, request in left:
                await self._send(self._gateways[at % GATEWAYS], request, served)

        try:
            await asyncio.gather(*(stream() for _ in range(STREAMS)))
        finally:
            looking.cancel()

    def _request(self, at: int) -> RoutedRequest:
        """Return one of the requests that all policies are asked, but for a salt."""
        organization, prefix = at % ORGANIZATIONS, at // ORGANIZATIONS % PREFIXES
        adapter = f"ft:{organization // 2}" if organization % 2 else None
        prompt = f"{digits(PREFIX_DIGITS, ORGANIZATIONS * prefix + organization)} and then? {digits(3, at)}"
        body = {"model": adapter or MODEL, "prompt": prompt, "max_tokens": ANSWER_TOKENS, "temperature": 1}
        body |= {"stream": True, "stream_options": {"include_usage": True}, "logit_bias": dict.fromkeys(ENDS, -100)}
        salt = f"{self._name} {organization}"
        return RoutedRequest(
            organization=OrganizationId(f"org_{organization}"),
            salt=salt,
            base_model=MODEL,
            adapter=adapter,
            body=json.dumps(body | {"cache_salt": salt}, separators=(",", ":")).encode(),
            sequences=1,
            prompt_tokens=2 * PREFIX_DIGITS,
        )

    async def _send(self, gateway: Policy, request: RoutedRequest, served: Served) -> None:
        began = time.monotonic()
        way = gateway.pick(request)
        headers = {"content-type": "application/json"}
        url = f"{way.replica.url}/v1/completions"
        with way:
            async with self._http.post(url, data=request.body, headers=headers) as answer:
                assert answer.status == 200, await answer.text()
                way.began(ReplicaLoad.read(answer.headers[LOAD_HEADER].encode()))
                served.waits_s.append(time.monotonic() - began)
                async for line in answer.content:
                    if line.startswith(b"data: {") and (usage := json.loads(line[6:]).get("usage")):
                        served.prompt_tokens += usage["prompt_tokens"]
                        served.cached_tokens += (usage["prompt_tokens_details"] or {}).get("cached_tokens") or 0
                        way.made(usage["completion_tokens"])

    async def _look(self) -> None:
        """Do what discovery and a gateway's list do."""
        while True:
            self._known.listed = [await self._seen(one) for one in self._known.listed]
            await asyncio.sleep(LOOK_EVERY_S)

    async def _seen(self, one: Replica) -> Replica:
        async with self._http.get(one.url + STATS_PATH) as answer:
            state = msgspec.json.decode(await answer.read(), type=ReplicaState)
        return msgspec.structs.replace(
            one, running=state.running, slots=state.slots, waiting_tokens=state.waiting_tokens
        )
