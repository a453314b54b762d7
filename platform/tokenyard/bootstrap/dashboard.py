"""`python -m tokenyard.bootstrap.dashboard`: the operator's pages."""

from collections.abc import Sequence

import uvicorn
import uvloop

from tokenyard.bootstrap.foundation import Foundation
from tokenyard.bootstrap.logs import log_to_stderr
from tokenyard.core.clock import Clock
from tokenyard.core.ids import ApiKeyId, OrganizationId
from tokenyard.finetune.job import Job
from tokenyard.finetune.operator_store import JobOperatorStore
from tokenyard.finetune.states import JobState
from tokenyard.settings import Settings
from tokenyard.tenancy.operator_store import OrganizationNames, TenancyOperatorStore
from tokenyard_dashboard.app import create_app
from tokenyard_dashboard.pages import Sources
from tokenyard_dashboard.ports import JobRow
from tokenyard_dashboard.queries import Invoices, Usages
from tokenyard_dashboard.session import Sessions

SHUTDOWN_LIMIT_S = 5


class RecentJobs:
    """Fine-tuning's jobs as the dashboard wants them."""

    def __init__(self, store: JobOperatorStore) -> None:
        self._store = store

    async def recent(self, organization: OrganizationId | None, limit: int) -> Sequence[JobRow]:
        """Return the newest jobs of one organization, or of all."""
        jobs = await self._store.page(organization=organization, limit=limit)
        return [_row(job) for job in jobs]


def _row(job: Job) -> JobRow:
    done = job.state is JobState.SUCCEEDED
    return JobRow(
        id=job.id,
        organization=job.organization,
        model=job.model,
        status=job.status,
        fine_tuned_model=str(job.model_name) if done else None,
        trained_tokens=job.trained_tokens,
        created_at=job.created_at_ms // 1000,
        finished_at=job.finished_at,
        error=None if job.error is None else job.error.message,
    )


class LiveOperatorKeys:
    """Tenancy's operator keys as the dashboard's sessions want them."""

    def __init__(self, store: TenancyOperatorStore, clock: Clock) -> None:
        self._store = store
        self._clock = clock

    async def is_active(self, key: ApiKeyId) -> bool:
        """Tell whether `key` is an operator key that is neither revoked nor expired."""
        now = self._clock.now_ms() // 1000
        keys = await self._store.operator_keys()
        return any(one.id == key and (one.expires is None or one.expires > now) for one in keys)


async def serve(settings: Settings) -> None:
    """Serve until told to stop."""
    async with Foundation.opened(settings) as foundation:
        sources = Sources(
            Usages(foundation.database),
            Invoices(foundation.database),
            OrganizationNames(foundation.database),
            RecentJobs(JobOperatorStore(foundation.database, foundation.clock)),
            foundation.clock,
        )
        keys = LiveOperatorKeys(foundation.tenancy_operator, foundation.clock)
        secret = settings.derived_secret("dashboard-session")
        sessions = Sessions(secret, keys, secure=settings.dashboard_over_https)
        config = uvicorn.Config(
            create_app(sources, sessions, foundation.authenticator),
            host=settings.host,
            port=settings.dashboard_port,
            log_level="warning",
            server_header=False,
            timeout_graceful_shutdown=SHUTDOWN_LIMIT_S,
        )
        await uvicorn.Server(config).serve()


def main() -> None:
    log_to_stderr()
    uvloop.run(serve(Settings()))


if __name__ == "__main__":
    main()
