"""The replica's front before an app that stands for the engine: who gets in, what is held, what is reported."""

import asyncio
import json
import secrets
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from redis.asyncio import Redis
from starlette.types import Receive, Scope, Send

from support.adapters.adapter_source import EveryAdapter, NamedCopy
from support.redis_reader import read_usage
from tokenyard.core.adapters import AdapterRef
from tokenyard.core.ids import AdapterId, ApiKeyId, AttemptId, OrganizationId, PriceId, ProjectId
from tokenyard.core.replica import ENGINE_DEAD, LOAD_HEADER, ReplicaLoad
from tokenyard.core.usage import MeterClaims, TokenUsage
from tokenyard.metering import header as meter
from tokenyard.metering.events import ReplicaReported
from tokenyard_deployments.serving.adapters.files import AdapterRejected
from tokenyard_deployments.serving.adapters.residency import Residency
from tokenyard_deployments.serving.engine.attempt_tokens import CURRENT_ATTEMPT, AttemptTokens
from tokenyard_deployments.serving.front.admission import EngineAdmission, EngineBounds
from tokenyard_deployments.serving.front.bearer import RequireBearer
from tokenyard_deployments.serving.front.request_metering import RequestMetering
from tokenyard_deployments.serving.reporter import Reporter

SECRET = secrets.token_bytes(32)
BEARER = secrets.token_bytes(32)
ORGANIZATION = OrganizationId("org_test")
PATH = "/v1/chat/completions"
DEADLINE_S = 5.0
CONTEXT = 1024
MAX_WAIT_S = 0.5


class Engine:
    """Takes one sequence for each request, and ends it when told."""

    def __init__(self) -> None:
        self.dead = False
        self.open: dict[str, AttemptTokens] = {}
        self.go = asyncio.Event()
        self.go.set()
        self.held: list[str] = []
        self.made = 0
        self.failure = ""
        self.load_go = asyncio.Event()
        self.load_go.set()

    def hold(self) -> None:
        """Begin each request, and end none before `go`."""
        self.made = 2
        self.go.clear()

    async def app(self, scope: Scope, receive: Receive, send: Send) -> None:
        message = await receive()
        counted = CURRENT_ATTEMPT.get()
        if counted is not None:
            sequence = secrets.token_hex(4)
            counted.started(sequence, lambda: self.made)
            self.open[sequence] = counted
            if not await self._until_done(receive):
                return
            counted.ended(sequence, sequence, TokenUsage(7, 3), aborted=False)
        if self.failure:
            await self._fail(send)
            return
        body = json.dumps({"path": scope["path"], "size": len(message["body"])}).encode()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": body})

    async def _fail(self, send: Send) -> None:
        self.dead = True
        if self.failure == "raise":
            raise RuntimeError("the engine is dead")
        status = 200 if self.failure == "stream" else 500
        await send({"type": "http.response.start", "status": status, "headers": []})
        await send({"type": "http.response.body", "body": b'data: {"error": {}}', "more_body": status == 200})
        if status == 200:
            await send({"type": "http.response.body", "body": b"data: [DONE]"})

    async def _until_done(self, receive: Receive) -> bool:
        """Wait as vLLM does: for the answer, or for the client to leave."""
        done, left = asyncio.ensure_future(self.go.wait()), asyncio.ensure_future(receive())
        await asyncio.wait((done, left), return_when=asyncio.FIRST_COMPLETED)
        left.cancel()
        done.cancel()
        return done.done() and not done.cancelled()

    async def abort(self, sequences: tuple[str, ...]) -> None:
        for sequence in sequences:
            usage = TokenUsage(7, self.made) if self.made else TokenUsage(0, 0)
            self.open[sequence].ended(sequence, sequence, usage, aborted=True)
        if self.dead:
            raise RuntimeError("the engine is dead")

    async def load_adapter(self, name: str, folder: Path) -> None:
        await self.load_go.wait()
        if self.failure == "load":
            self.dead = True
            raise RuntimeError("the engine is dead")
        self.held.append(name)

    async def unload_adapter(self, name: str) -> None:
        self.held.remove(name)


class Source(EveryAdapter):
    async def fetch(self, adapter: AdapterRef) -> NamedCopy:
        if "bad" in adapter.name:
            raise AdapterRejected("damaged: /a/path/inside")
        return await super().fetch(adapter)


class Front:
    def __init__(self, redis: Redis, redis_url: str, folder: Path) -> None:
        self.engine = Engine()
        self.admission = EngineAdmission(EngineBounds(slots=2, sequences=4, tokens=16 * CONTEXT))
        self.reporter = Reporter(redis_url, folder)
        self._redis = redis
        self.metering = RequestMetering(
            self.engine.app,
            secret=SECRET,
            replica="replica-1",
            engine=self.engine,
            admission=self.admission,
            residency=Residency(self.engine, Source(), 2),
            reporter=self.reporter,
            context_length=CONTEXT,
            generates=True,
            max_wait_s=MAX_WAIT_S,
            load=lambda: ReplicaLoad(self.admission.sequences, slots=2, waiting_tokens=11),
        )
        self.client = httpx.AsyncClient(
            transport=httpx.ASGITransport(RequireBearer(self.metering, BEARER)),
            base_url="http://replica",
            headers={"authorization": f"Bearer {BEARER.hex()}"},
        )

    async def send(self, claims: MeterClaims | None = None, path: str = PATH, **body: Any) -> httpx.Response:
        claims = claims or self.claims()
        headers = {meter.HEADER: meter.sign(claims, SECRET)}
        model = claims.adapter.name if claims.adapter else claims.base_model
        return await self.client.post(path, json={"model": model, **body}, headers=headers)

    def claims(self, adapter: str | None = None, organization: str = ORGANIZATION) -> MeterClaims:
        ref = AdapterRef(AdapterId("a"), adapter, "adapters/org/a", "0" * 64) if adapter else None
        return MeterClaims(
            attempt=AttemptId(f"req_{secrets.token_hex(8)}.1"),
            organization=OrganizationId(organization),
            project=ProjectId("p"),
            key=ApiKeyId("k"),
            model=adapter or "tiny",
            base_model="tiny",
            price=PriceId("c/tiny"),
            admitted_at_ms=1,
            endpoint=PATH,
            adapter=ref,
        )

    async def report(self, claims: MeterClaims) -> ReplicaReported:
        async with asyncio.timeout(DEADLINE_S):
            while True:
                for event in await read_usage(self._redis, ORGANIZATION):
                    if isinstance(event, ReplicaReported) and event.claims == claims:
                        return event
                await asyncio.sleep(0.01)


@pytest.fixture
async def front(redis: Redis, redis_url: str, tmp_path: Path) -> AsyncIterator[Front]:
    made = Front(redis, redis_url, tmp_path / "spool")
    yield made
    await made.client.aclose()
    await made.reporter.close()


async def test_a_request_passes_whole_and_is_reported(front: Front) -> None:
    claims = front.claims()
    answer = await front.send(claims, messages=["x" * 100_000])
    assert answer.json()["size"] > 100_000
    report = await front.report(claims)
    assert (report.usage, report.finished, report.replica) == (TokenUsage(7, 3), True, "replica-1")
    assert front.admission.sequences == 0
    assert answer.headers[LOAD_HEADER] == "1 2 11", "what is inside as the answer begins, with the request itself"


@pytest.mark.parametrize(
    "authorization", ["", "Bearer", f"Bearer {SECRET.hex()}", f"bearer {BEARER.hex()}"], ids=range(4)
)
async def test_without_the_bearer_there_is_nothing(front: Front, authorization: str) -> None:
    for path in (PATH, "/metrics", "/internal/stats", "/nowhere"):
        assert (await front.client.get(path, headers={"authorization": authorization})).status_code == 401


async def test_two_bearers_are_none(front: Front) -> None:
    headers = [("authorization", "Bearer x")]
    assert (await front.client.get("/metrics", headers=headers)).status_code == 401


@pytest.mark.parametrize("path", ["/metrics", "/health", "/internal/stats", "/v1/models", "/tokenize"])
async def test_what_is_free_needs_no_meter(front: Front, path: str) -> None:
    assert (await front.client.post(path, content=b"{}")).status_code == 200


@pytest.mark.parametrize("path", ["/v1/load_lora_adapter", "/v1/chat/completions/batch", "/", "/internal", "/pooling"])
async def test_what_is_neither_free_nor_metered_is_not_served(front: Front, path: str) -> None:
    assert (await front.send(path=path)).status_code == 404


@pytest.mark.parametrize("value", [None, "", "x", "e30=." + "0" * 64])
async def test_a_meter_that_is_not_ours_serves_nothing(front: Front, value: str | None) -> None:
    headers = {} if value is None else {meter.HEADER: value}
    assert (await front.client.post(PATH, json={"model": "tiny"}, headers=headers)).status_code == 403
    forged = {meter.HEADER: meter.sign(front.claims(), b"another")}
    assert (await front.client.post(PATH, json={"model": "tiny"}, headers=forged)).status_code == 403
    assert not front.engine.open


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"model": "ft:tiny:other:x:1"}, 403),
        ({"model": ""}, 403),
        ({"n": "two"}, 400),
        ({"background": True}, 400),
        ({"model": 7}, 400),
    ],
)
async def test_a_body_that_does_not_fit_its_meter_is_refused(front: Front, body: dict[str, Any], status: int) -> None:
    assert (await front.send(**body)).status_code == status
    assert not front.engine.open


@pytest.mark.parametrize(
    ("body", "sequences"),
    [
        ({"n": 2}, 2),
        ({"best_of": 2, "n": 1}, 2),
        ({"prompt": ["a", "b"]}, 2),
        ({"prompt": [1, 2, 3]}, 1),
        ({"prompt": "a"}, 1),
        ({"prompt": [[1], [2]], "n": 2}, 4),
        ({"input": ["a", "b", "c"]}, 3),
        ({"input": [{"role": "user", "content": "x"}]}, 1),
        ({"n": 128}, 128),
    ],
)
async def test_each_sequence_is_counted(front: Front, body: dict[str, Any], sequences: int) -> None:
    front.engine.hold()
    request = asyncio.create_task(front.send(**body))
    await until(lambda: bool(front.engine.open))
    assert front.admission.sequences == sequences
    front.engine.go.set()
    assert (await request).status_code == 200


@pytest.mark.parametrize("body", [{"prompt": ["a"] * 128, "n": 128}, {"n": 129}, {"prompt": [[1]] * 129}])
async def test_a_request_for_too_many_answers_is_refused_by_name(front: Front, body: dict[str, Any]) -> None:
    answer = await front.send(**body)
    assert answer.status_code == 400
    error = answer.json()["error"]
    assert (error["type"], error["param"]) == ("invalid_request_error", "n" if "n" in body else "prompt")
    assert "at most 128" in error["message"]
    assert not front.engine.open


async def test_what_is_over_an_organizations_own_part_is_told_to_slow_down(front: Front) -> None:
    front.engine.hold()
    requests = [asyncio.create_task(front.send()) for _ in range(4)]
    await until(lambda: front.admission.sequences == 4)
    refused = await front.send()
    assert refused.status_code == 429
    assert int(refused.headers["retry-after"]) >= 1
    assert refused.json()["error"]["code"] == "slow_down"
    front.engine.go.set()
    assert [answer.status_code for answer in await asyncio.gather(*requests)] == [200] * 4
    assert (await front.send()).status_code == 200


async def test_another_organization_finds_a_place_beside_it(front: Front) -> None:
    front.engine.hold()
    requests = [asyncio.create_task(front.send()) for _ in range(4)]
    await until(lambda: front.admission.sequences == 4)
    requests += [asyncio.create_task(front.send(front.claims(organization=f"org_{number}"), n=4)) for number in (1, 2)]
    await until(lambda: front.admission.sequences == 12)
    refused = await front.send(front.claims(organization="org_3"))
    assert refused.status_code == 503
    assert refused.json()["error"]["code"] == "server_is_overloaded"
    front.engine.go.set()
    assert [answer.status_code for answer in await asyncio.gather(*requests)] == [200] * 6


async def test_a_request_that_gets_no_token_in_time_is_given_up(front: Front) -> None:
    front.engine.go.clear()
    claims = front.claims()
    answer = await front.send(claims)
    assert answer.status_code == 503
    assert int(answer.headers["retry-after"]) >= 1
    report = await front.report(claims)
    assert (report.usage, report.finished) == (TokenUsage(0, 0), False)
    await until(lambda: front.admission.sequences == 0)


async def test_one_that_has_begun_is_waited_for(front: Front) -> None:
    front.engine.hold()
    request = asyncio.create_task(front.send())
    await asyncio.sleep(2 * MAX_WAIT_S)
    assert not request.done()
    front.engine.go.set()
    assert (await request).status_code == 200


@pytest.mark.parametrize("dead", [False, True])
async def test_a_client_that_leaves_frees_its_place_and_pays_what_was_made(front: Front, dead: bool) -> None:
    front.engine.hold()
    claims = front.claims("ft:tiny:org:x:a")
    request = asyncio.create_task(front.send(claims))
    await until(lambda: bool(front.engine.open))
    front.engine.dead = dead
    request.cancel()
    report = await front.report(claims)
    assert (report.usage, report.finished) == (TokenUsage(7, 2), False)
    await until(lambda: front.admission.sequences == 0)


async def test_a_burst_on_a_cold_adapter_takes_no_place_from_others(front: Front) -> None:
    front.engine.load_go.clear()
    cold = [asyncio.create_task(front.send(front.claims("ft:tiny:org:x:a"))) for _ in range(50)]
    for _ in range(5):
        assert (await front.send()).status_code == 200
    await until(lambda: front.admission.sequences == 0)
    front.engine.load_go.set()
    answers = [answer.status_code for answer in await asyncio.gather(*cold)]
    assert 200 in answers
    assert set(answers) <= {200, 429}


async def test_who_leaves_while_its_adapter_loads_is_reported_with_nothing(front: Front) -> None:
    front.engine.load_go.clear()
    claims = front.claims("ft:tiny:org:x:a")
    waiting = asyncio.create_task(front.send(claims))
    await asyncio.sleep(0.05)
    waiting.cancel()
    assert (await front.report(claims)).usage == TokenUsage(0, 0)


async def test_the_adapter_is_loaded_first(front: Front) -> None:
    assert (await front.send(front.claims("ft:tiny:org:x:a"))).status_code == 200
    assert front.engine.held == ["ft:tiny:org:x:a"]


async def test_an_adapter_that_cannot_be_served_is_not_the_clients_fault(front: Front) -> None:
    answer = await front.send(front.claims("ft:tiny:org:bad:b"))
    assert answer.status_code == 503
    assert "path" not in answer.text
    await until(lambda: front.admission.sequences == 0)


async def test_a_dead_engine_takes_nothing_new_and_says_so(front: Front) -> None:
    front.engine.dead = True
    answer = await front.send()
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, ENGINE_DEAD)
    assert "retry-after" in answer.headers


@pytest.mark.parametrize("failure", ["answer", "raise", "stream"])
async def test_a_request_that_the_engine_dies_under_is_told_the_same(front: Front, failure: str) -> None:
    """vLLM answers 500, raises, or begins a stream of one error frame: nothing that a client could use was sent."""
    front.engine.failure = failure
    answer = await front.send()
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, ENGINE_DEAD)


async def test_an_engine_that_dies_while_an_adapter_loads_is_told_the_same(front: Front) -> None:
    front.engine.failure = "load"
    answer = await front.send(front.claims("ft:tiny:org:x:a"))
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, ENGINE_DEAD)


async def test_an_engine_that_hangs_is_hung_up_on(front: Front) -> None:
    front.engine.hold()
    claims = front.claims()
    request = asyncio.create_task(front.send(claims))
    await until(lambda: bool(front.engine.open))
    front.engine.dead = True
    front.metering.hang_up_all()
    answer = await request
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, ENGINE_DEAD)
    assert not (await front.report(claims)).finished
    await until(lambda: front.admission.sequences == 0)


async def until(true: Any) -> None:
    async with asyncio.timeout(DEADLINE_S):
        while not true():  # noqa: ASYNC110 - the front tells nobody
            await asyncio.sleep(0.005)
