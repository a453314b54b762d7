"""`python -m tokenyard.bootstrap.worker`: the named loops of every slice, and a small page of metrics."""

import asyncio
import contextlib
import os
import secrets
import socket
from contextlib import AsyncExitStack

import aiohttp
import uvicorn
import uvloop
from prometheus_client import CollectorRegistry, Counter

from tokenyard.bootstrap.evaluation import eval_worker_loops
from tokenyard.bootstrap.finetuning import training_policy
from tokenyard.bootstrap.foundation import Foundation
from tokenyard.bootstrap.logs import log_to_stderr
from tokenyard.bootstrap.payments import payment_provider
from tokenyard.bootstrap.webhooks import webhook_worker_loops
from tokenyard.catalog.loops import catalog_loops
from tokenyard.catalog.replicas.prometheus_routes import prometheus_router
from tokenyard.catalog.replicas.registry import ReplicaRegistry
from tokenyard.clients.gateway_answers import GatewayAnswers
from tokenyard.clients.platform_api.connection import ApiConnection
from tokenyard.clients.ray_jobs import RayJobs
from tokenyard.clients.ray_nodes import RayNodes
from tokenyard.clients.ray_serve import RayServe
from tokenyard.clients.replica import ReplicaClient
from tokenyard.files.loops import cleaning_loop
from tokenyard.files.operator_store import FileOperatorStore
from tokenyard.files.store import FileStore
from tokenyard.files.stored_months import StoredMonths
from tokenyard.finetune.loops import finetune_loops
from tokenyard.finetune.operator_store import files_in_use
from tokenyard.limits.sweeper import Sweeper
from tokenyard.responses.loops import answer_loops
from tokenyard.settings import Settings
from tokenyard.storage.change_feed import ChangeFeed
from tokenyard.tenancy.loops import tenancy_loops
from tokenyard.tenancy.store import record
from tokenyard.web.app import create_app
from tokenyard.web.health import Dependencies
from tokenyard.web.loops import Loop, run_loops
from tokenyard.web.metrics import process_registry
from tokenyard.webhooks.events import write_event
from tokenyard_billing.alerts.loops import AlertMetrics, BudgetAlerts
from tokenyard_billing.charging.metrics import LedgerMetrics
from tokenyard_billing.dunning.schedule import DunningSchedule
from tokenyard_billing.invoicing.closing import ClosingTerms
from tokenyard_billing.loops import BillingWorker
from tokenyard_billing.payments.ports import PaymentProvider
from tokenyard_billing.periods import DAY_MS, HOUR_MS

SHUTDOWN_LIMIT_S = 5


def _billing(
    foundation: Foundation, name: str, registry: CollectorRegistry, provider: PaymentProvider | None
) -> BillingWorker:
    settings = foundation.settings
    return BillingWorker(
        name=name,
        database=foundation.database,
        redis=foundation.redis,
        prices=foundation.prices,
        plans=foundation.tenancy_operator,
        outbox=foundation.outbox,
        live=foundation.live_budgets,
        metrics=LedgerMetrics(registry),
        clock=foundation.clock,
        report_wait_ms=settings.replica_report_wait_ms,
        lease_ms=settings.hold_lease_ms,
        renewal_ms=settings.hold_renewal_ms,
        terms=_closing_terms(settings),
        audit=record,
        events=write_event,
        blocking=foundation.blocking,
        dunning=DunningSchedule(settings.dunning_days),
        provider=provider,
    )


def _closing_terms(settings: Settings) -> ClosingTerms:
    return ClosingTerms(
        close_after_ms=settings.close_after_hours * HOUR_MS,
        payment_ms=settings.payment_days * DAY_MS,
        issuer=settings.invoice_issuer,
        prefix=settings.invoice_prefix,
        credit_note_prefix=settings.credit_note_prefix,
    )


def _money_loops(foundation: Foundation) -> list[Loop]:
    return [
        Sweeper(foundation.redis, renewal_ms=foundation.settings.hold_renewal_ms, before=foundation.outbox.step).loop(),
        *foundation.outbox.loops(),
        foundation.reservations.loop(),
        *tenancy_loops(foundation.organizations),
    ]


def _model_loops(
    foundation: Foundation,
    name: str,
    serve: RayServe,
    replicas: ReplicaClient,
    training: tuple[RayJobs, RayNodes, GatewayAnswers],
) -> list[Loop]:
    database, clock, bases = foundation.database, foundation.clock, foundation.base_models
    files = FileStore(database, clock, files_in_use)
    return [
        *catalog_loops(
            redis=foundation.redis,
            database=database,
            blobs=foundation.blobs,
            plans=foundation.tenancy_operator,
            serve=serve,
            replicas=replicas,
            audit=record,
            outbox=foundation.outbox,
            clock=clock,
            bases=bases,
            retired_kept_ms=foundation.settings.retired_adapters_ms,
        ),
        *finetune_loops(
            owner=name,
            database=database,
            blobs=foundation.blobs,
            clock=clock,
            files=files,
            models=bases,
            runs=training[0],
            nodes=training[1],
            plans=foundation.tenancy_operator,
            reservations=foundation.reservations,
            adapters=foundation.adapters,
            replicas=ReplicaRegistry(foundation.redis),
            canary=replicas,
            answers=training[2],
            policy=training_policy(foundation.settings),
            events=write_event,
            folders_kept_ms=foundation.settings.job_folders_ms,
        ),
        StoredMonths(
            database, foundation.stored, foundation.tenancy_operator.organization_ids, foundation.outbox, clock
        ).loop(),
        cleaning_loop(FileOperatorStore(database, clock, files_in_use), files, foundation.blobs),
        *answer_loops(foundation.answers_operator),
        *eval_worker_loops(
            foundation.settings,
            database,
            clock,
            owner=name,
            files=files,
            blobs=foundation.blobs,
            answers=training[2],
        ),
    ]


async def work(settings: Settings) -> None:
    """Run all loops until told to stop; then hand over what this worker leased."""
    registry = process_registry()
    failures = Counter("tokenyard_loop_failures", "Failed rounds of a worker's loop.", ["loop"], registry=registry)
    # No other worker has this name, in this run or an earlier one.
    name = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}"
    async with AsyncExitStack() as stack:
        foundation = await stack.enter_async_context(Foundation.opened(settings))
        await stack.enter_async_context(foundation.price_book)
        files = await stack.enter_async_context(foundation.model_files)
        listeners = {**foundation.price_book.listeners(), **files.listeners()}
        await stack.enter_async_context(ChangeFeed(foundation.redis, listeners))
        http = await stack.enter_async_context(aiohttp.ClientSession())
        jobs = RayJobs(http, settings.effective_ray_url, settings.ray_token_file)
        token = settings.ray_token_file.read_text().strip()
        nodes = await stack.enter_async_context(RayNodes(settings.effective_ray_url, token))
        serve = await stack.enter_async_context(RayServe(settings.effective_ray_url, token))
        replicas = await stack.enter_async_context(ReplicaClient(settings.derived_secret("replica-bearer").hex()))
        gateway = await stack.enter_async_context(ApiConnection(settings.effective_api_url))
        answers = GatewayAnswers(gateway, foundation.lent_bearer)
        provider = await stack.enter_async_context(payment_provider(settings))
        billing = _billing(foundation, name, registry, provider)
        stack.push_async_callback(billing.stop)
        alerts = BudgetAlerts(
            database=foundation.database,
            leases=billing.leases,
            rules=foundation.tenancy_operator,
            metrics=AlertMetrics(registry),
            events=write_event,
            clock=foundation.clock,
        )
        webhooks = await stack.enter_async_context(
            webhook_worker_loops(settings, foundation.database, foundation.clock, record, registry)
        )
        loops = [
            *billing.loops(),
            alerts.loop(),
            *_money_loops(foundation),
            *webhooks,
            *_model_loops(foundation, name, serve, replicas, (jobs, nodes, answers)),
        ]
        running = asyncio.create_task(run_loops(loops, lambda loop: failures.labels(loop).inc()))
        try:
            await _serve_metrics(foundation, registry, running)
        finally:
            running.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await running


async def _serve_metrics(foundation: Foundation, registry: CollectorRegistry, running: asyncio.Task[None]) -> None:
    async def loops_run() -> bool:
        return not running.done()

    dependencies = Dependencies({"loops": loops_run}, registry)
    app = create_app(
        title="Tokenyard worker",
        routers=[prometheus_router(ReplicaRegistry(foundation.redis))],
        dependencies=dependencies,
        registry=registry,
    )
    config = uvicorn.Config(
        app,
        host=foundation.settings.host,
        port=foundation.settings.worker_port,
        log_level="warning",
        access_log=False,
        timeout_graceful_shutdown=SHUTDOWN_LIMIT_S,
    )
    async with dependencies:
        await uvicorn.Server(config).serve()


def main() -> None:
    log_to_stderr()
    uvloop.run(work(Settings()))


if __name__ == "__main__":
    main()
