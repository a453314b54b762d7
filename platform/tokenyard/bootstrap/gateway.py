"""`python -m tokenyard.bootstrap.gateway`: one gateway process, the inference path and the control plane."""

import argparse
import gc
import resource
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager

import uvicorn
import uvloop
from fastapi import APIRouter
from prometheus_client import CollectorRegistry
from starlette.types import ASGIApp

from tokenyard.bootstrap.evaluation import eval_routers
from tokenyard.bootstrap.finetuning import file_and_job_routers, training_policy
from tokenyard.bootstrap.foundation import Foundation
from tokenyard.bootstrap.logs import log_to_stderr
from tokenyard.bootstrap.payments import payment_provider
from tokenyard.bootstrap.webhooks import webhook_routers, webhook_sender
from tokenyard.catalog.base_models.operator_routes import model_file_router
from tokenyard.catalog.base_models.operator_store import ModelFileOperatorStore
from tokenyard.catalog.base_models.server_access import ServerKeys, server_keys
from tokenyard.catalog.operator_routes import operator_router as catalog_operator_router
from tokenyard.catalog.replicas.registry import ReplicaRegistry
from tokenyard.catalog.replicas.replica_list import ReplicaList
from tokenyard.catalog.tenant_routes import models_router
from tokenyard.catalog.tenant_routes import tenant_router as catalog_router
from tokenyard.clients.gateway_answers import GatewayAnswers
from tokenyard.clients.model_server import ModelServerClient
from tokenyard.clients.platform_api.connection import ApiConnection
from tokenyard.clients.server_elsewhere import ElsewhereClient
from tokenyard.core.ids import OrganizationId
from tokenyard.core.models import BaseModel
from tokenyard.files.store import FileStore
from tokenyard.files.tenant_routes import FILES_PATH
from tokenyard.finetune.operator_store import JobOperatorStore, files_in_use
from tokenyard.gateway.app import create_app
from tokenyard.gateway.counting.token_counter import TokenCounter
from tokenyard.gateway.elsewhere.server_relay import ServerRelay
from tokenyard.gateway.endpoints.anthropic.unpaid_replies import errors_at
from tokenyard.gateway.endpoints.responses.replay import ResponseReplay
from tokenyard.gateway.idempotency.encryption import ReplyCipher
from tokenyard.gateway.idempotency.stage import IdempotencyStage
from tokenyard.gateway.idempotency.store import IdempotencyStore
from tokenyard.gateway.path.in_flight import InFlightBounds
from tokenyard.gateway.path.inference import Inference
from tokenyard.gateway.path.relay import Relay
from tokenyard.gateway.tokenize_routes import tokenize_router
from tokenyard.limits.admission import RedisAdmission
from tokenyard.limits.budget_reader import RedisBudgetReader
from tokenyard.limits.outage_admission import OutageAdmission
from tokenyard.responses.conversations import ConversationStore
from tokenyard.responses.event_streams import ResponseStreams
from tokenyard.responses.keeper import AnswerKeeper
from tokenyard.responses.tenant_routes import chat_completion_router, response_router
from tokenyard.settings import Settings
from tokenyard.storage.change_feed import ChangeFeed
from tokenyard.tenancy.operator_routes import operator_router as tenancy_operator_router
from tokenyard.tenancy.permissions.store import PermissionStore
from tokenyard.tenancy.permissions.tenant_routes import permission_router
from tokenyard.tenancy.plans.operator_routes import plans_router
from tokenyard.tenancy.plans.operator_store import PlanOperatorStore
from tokenyard.tenancy.plans.tenant_routes import project_models_router
from tokenyard.tenancy.store import record
from tokenyard.tenancy.tenant_routes import tenant_router as tenancy_router
from tokenyard.web.access_log import AccessLog
from tokenyard.web.client_address import TrustedProxies
from tokenyard.web.edge.bounds import HttpBounds
from tokenyard.web.edge.http_protocol import BoundedConfig
from tokenyard.web.health import Check, Dependencies
from tokenyard.web.metrics import process_registry
from tokenyard.webhooks.delivery.sending import WebhookSender
from tokenyard.webhooks.events import write_event
from tokenyard_billing.api import billing_routers
from tokenyard_billing.payments.ports import PaymentProvider

ROUTES = ("all", "inference", "control")
SHUTDOWN_LIMIT_S = 300
HELD_OF_ALL = 2
OTHER_FILES = 256
COLLECTED_AT_ONCE = 5_000  # objects; Python's own is 700


def _checks(foundation: Foundation, replicas: ReplicaList | None, elsewhere: ServerRelay | None) -> dict[str, Check]:
    async def redis() -> bool:
        return bool(await foundation.redis.ping())

    checks: dict[str, Check] = {"redis": redis, "database": foundation.database.answers}
    served = foundation.base_models.all()
    if replicas is not None and any(model.server is None and model.waking is None for model in served):
        checks["replicas"] = replicas.has_replicas
    if elsewhere is not None and any(model.server is not None for model in served):
        checks["servers"] = elsewhere.any_answers
    return checks


@asynccontextmanager
async def application(
    settings: Settings, routes: str, registry: CollectorRegistry | None = None
) -> AsyncIterator[ASGIApp]:
    """Open all that a gateway needs and yield it as one ASGI application, which shows the metrics in `registry`."""
    registry = registry or process_registry()
    async with AsyncExitStack() as stack:
        foundation = await stack.enter_async_context(Foundation.opened(settings))
        book = await stack.enter_async_context(foundation.price_book)
        files = await stack.enter_async_context(foundation.model_files)
        followers = (foundation.authenticator, foundation.models, book, files)
        listeners = {kind: listener for one in followers for kind, listener in one.listeners().items()}
        await stack.enter_async_context(ChangeFeed(foundation.redis, listeners))
        replicas: ReplicaList | None = None
        inference: Inference | None = None
        elsewhere: ServerRelay | None = None
        routers: list[APIRouter] = [models_router(foundation.models)]
        if routes != "control":
            replicas = await stack.enter_async_context(ReplicaList(ReplicaRegistry(foundation.redis)))
            elsewhere = await _elsewhere(foundation, stack)
            counter = TokenCounter(foundation.base_models.all())
            inference = await _inference(
                foundation, replicas, elsewhere=elsewhere, counter=counter, registry=registry, stack=stack
            )
            routers.append(tokenize_router(foundation.models, counter))
        if routes != "inference":
            itself = await stack.enter_async_context(ApiConnection(settings.effective_api_url))
            sender = await stack.enter_async_context(webhook_sender(settings))
            provider = await stack.enter_async_context(payment_provider(settings))
            routers.extend(_control_plane(foundation, GatewayAnswers(itself, foundation.lent_bearer), sender, provider))
        dependencies = Dependencies(_checks(foundation, replicas, elsewhere), registry)
        yield create_app(
            authenticator=foundation.authenticator,
            inference=inference,
            routers=routers,
            dependencies=await stack.enter_async_context(dependencies),
            registry=registry,
            streaming_paths=(FILES_PATH,),
        )


async def _elsewhere(foundation: Foundation, stack: AsyncExitStack) -> ServerRelay:
    settings = foundation.settings
    keys = ServerKeys(foundation.base_models, settings.server_keys, settings.plain_http_servers)
    client = await stack.enter_async_context(ElsewhereClient())
    return ServerRelay(client, keys, user_secret=settings.derived_secret("end-user"))


async def _inference(
    foundation: Foundation,
    replicas: ReplicaList,
    *,
    elsewhere: ServerRelay,
    counter: TokenCounter,
    registry: CollectorRegistry,
    stack: AsyncExitStack,
) -> Inference:
    settings = foundation.settings
    bearer = settings.derived_secret("replica-bearer").hex()
    admission = RedisAdmission(
        foundation.redis,
        foundation.budgets.load,
        spool_folder=settings.data_dir / "spool",
        lease_ms=settings.hold_lease_ms,
        renewal_ms=settings.hold_renewal_ms,
    )
    answers = AnswerKeeper(
        foundation.answers,
        ConversationStore(
            foundation.database,
            foundation.clock,
            foundation.answers_cipher,
            retention_ms=settings.stored_answers_ms,
        ),
        foundation.answers_operator,
        foundation.answers_cipher,
        quota_bytes=settings.stored_answers_bytes_per_organization,
    )
    relay = Relay(
        await stack.enter_async_context(ModelServerClient(bearer)),
        replicas,
        meter_secret=settings.derived_secret("meter"),
        salt_secret=settings.derived_secret("cache-salt"),
        elsewhere=elsewhere,
    )
    replies = IdempotencyStore(
        foundation.redis,
        lease_ms=settings.hold_lease_ms,
        max_bytes=settings.max_kept_reply_bytes_per_organization,
    )
    idempotency = IdempotencyStage(
        replies, ReplyCipher(settings.derived_secret("idempotent-replies")), renewal_ms=settings.hold_renewal_ms
    )
    return Inference(
        authenticator=foundation.authenticator,
        models=foundation.models,
        admission=OutageAdmission(await stack.enter_async_context(admission), foundation.clock, registry),
        relay=relay,
        answers=await stack.enter_async_context(answers),
        idempotency=idempotency,
        clock=foundation.clock,
        registry=registry,
        access_log=await stack.enter_async_context(AccessLog(sys.stdout.buffer.write, sys.stdout.buffer.flush)),
        max_request_bytes=settings.max_request_bytes,
        counter=counter,
        in_flight=InFlightBounds(
            requests=settings.max_in_flight,
            requests_of_one=settings.max_in_flight_per_organization,
            bytes=settings.max_in_flight_bytes,
            bytes_of_one=settings.max_in_flight_bytes_per_organization,
        ),
    )


def _control_plane(
    foundation: Foundation, answers: GatewayAnswers, sender: WebhookSender, provider: PaymentProvider | None
) -> Sequence[APIRouter]:
    settings, clock, database = foundation.settings, foundation.clock, foundation.database
    bases = foundation.base_models

    async def find_organization(reference: str) -> OrganizationId:
        return OrganizationId((await foundation.tenancy_operator.organization(reference)).id)

    return (
        tenancy_operator_router(
            foundation.organizations,
            foundation.tenancy,
            foundation.tenancy_operator,
            foundation.api_keys,
            foundation.tenancy_push,
        ),
        plans_router(PlanOperatorStore(database, clock), foundation.tenancy_push),
        tenancy_router(foundation.tenancy, foundation.api_keys, foundation.tenancy_push),
        project_models_router(foundation.tenancy, foundation.tenancy_push),
        permission_router(PermissionStore(database, clock), foundation.models, foundation.tenancy_push),
        catalog_router(foundation.adapters, foundation.aliases),
        catalog_operator_router(foundation.catalog_operator, foundation.adapters, bases, foundation.prices, clock),
        model_file_router(_model_file_store(foundation), foundation.outbox),
        *file_and_job_routers(
            database=database,
            blobs=foundation.blobs,
            clock=clock,
            models=bases,
            own_models=foundation.models,
            callable_models=foundation.models,
            prices=foundation.prices,
            reservations=foundation.reservations,
            organizations=foundation.tenancy_operator,
            plans=foundation.tenancy_operator,
            policy=training_policy(settings),
            max_upload_bytes=settings.max_upload_bytes,
            quota=foundation.quota,
            adapters=foundation.catalog_store,
            answers=answers,
            events=write_event,
            adapter_downloads=settings.adapter_downloads,
        ),
        response_router(foundation.answers, ResponseStreams(foundation.answers, ResponseReplay)),
        chat_completion_router(foundation.answers),
        *eval_routers(settings, database, clock, FileStore(database, clock, files_in_use), foundation.models),
        *webhook_routers(settings, database, clock, record, sender=sender, find_organization=find_organization),
        *billing_routers(
            database=database,
            redis=foundation.redis,
            prices=foundation.prices,
            outbox=foundation.outbox,
            wallet=foundation.wallet,
            find_organization=find_organization,
            live_budgets=RedisBudgetReader(foundation.redis),
            jobs=JobOperatorStore(database, clock, write_event),
            audit=record,
            events=write_event,
            clock=clock,
            blocking=foundation.blocking,
            provider=provider,
            issuer=settings.invoice_issuer,
            fonts_dir=settings.document_fonts_dir,
        ),
    )


def _model_file_store(foundation: Foundation) -> ModelFileOperatorStore:
    settings = foundation.settings

    def check(models: Sequence[BaseModel]) -> None:
        server_keys(models, settings.server_keys, settings.plain_http_servers)

    return ModelFileOperatorStore(foundation.database, foundation.clock, record, settings.effective_models_path, check)


async def serve(settings: Settings, routes: str) -> None:
    """Serve until told to stop; requests under way are finished first."""
    registry = process_registry()
    async with application(settings, routes, registry) as app:
        # What is alive now lives on: the collector need not look at it again.
        gc.collect()
        gc.freeze()
        # Requests leave nothing for it behind; what it finds is of rarer kinds, and may wait somewhat longer.
        gc.set_threshold(COLLECTED_AT_ONCE)
        config = BoundedConfig(
            app,
            _http_bounds(settings),
            registry,
            host=settings.host,
            port=settings.gateway_port,
            shutdown_s=SHUTDOWN_LIMIT_S,
            errors_at=errors_at,
        )
        await uvicorn.Server(config).serve()


def _http_bounds(settings: Settings) -> HttpBounds:
    # One that is relayed needs another one upstream.
    connections, held = settings.max_connections, HELD_OF_ALL * settings.max_connections
    files = _open_files(2 * connections + held + OTHER_FILES) - OTHER_FILES
    connections = min(connections, files // 2)
    return HttpBounds(
        connections=connections,
        held=min(held, files - 2 * connections),
        connections_of_one=settings.max_connections_per_address,
        idle_s=settings.keep_alive_s,
        header_s=settings.header_timeout_s,
        upload_s=settings.upload_grace_s,
        upload_bytes_per_s=settings.min_upload_bytes_per_s,
        proxies=TrustedProxies(settings.trusted_proxies),
    )


def _open_files(wanted: int) -> int:
    """Let this process open so many files, or as many as it may; return how many."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    files = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < files:
        resource.setrlimit(resource.RLIMIT_NOFILE, (files, hard))
    return files


def main() -> None:
    parser = argparse.ArgumentParser(prog="tokenyard-gateway", description=__doc__)
    parser.add_argument("--routes", choices=ROUTES, default="all", help="which half of the API this process serves")
    arguments = parser.parse_args()
    log_to_stderr()
    uvloop.run(serve(Settings(), arguments.routes))


if __name__ == "__main__":
    main()
