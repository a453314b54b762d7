"""Files and jobs of an installation that is older than their tables are now."""

import asyncio
from pathlib import Path

from alembic import command
from sqlalchemy import text

from support.fakes.clock import FrozenClock
from tokenyard.core.ids import FileId, JobId, OrganizationId
from tokenyard.files.store import FileStore
from tokenyard.finetune.operator_store import files_in_use
from tokenyard.finetune.store import JobStore
from tokenyard.finetune.views import CheckpointView, JobView
from tokenyard.storage.database import Database
from tokenyard.storage.migrate import alembic_config, upgrade
from tokenyard.webhooks.events import write_event

ROWS = (
    """INSERT INTO finetune_files (id, organization, project, filename, purpose, state, bytes, created_at_ms, summary)
       VALUES ('file-1', 'org_1', 'proj_1', 'a.jsonl', 'fine-tune', 'processed', 9, 1000,
               '{"rows": 1, "messages": 2, "text_tokens": 3}')""",
    """INSERT INTO finetune_jobs (id, organization, project, "key", organization_slug, created_at_ms, model, suffix,
           seed, training_file, hyperparameters, details, has_details, price, reserved_tokens, reserved_amount,
           admitted_at_ms, state, attempt, submitted, events_taken, version, lease_until_ms)
       VALUES ('ftjob-1', 'org_1', 'proj_1', 'key_1', 'acme', 1000, 'small-model', 'custom', 1, 'file-1',
           '{"n_epochs": 1, "batch_size": 1, "learning_rate_multiplier": 1.0}', '{}', 0, 'p', 1, 1, 1000, 'running',
           1, 1, 0, 1, 0)""",
    """INSERT INTO finetune_checkpoints (id, organization, job, attempt, step_number, created_at, path, metrics)
       VALUES ('ftckpt_1', 'org_1', 'ftjob-1', 1, 10, 1, 'checkpoints/step-10', '{"train_loss": 0.5}')""",
)


def test_a_file_and_its_unfinished_job_live_on(tmp_path: Path) -> None:
    url = f"sqlite+aiosqlite:///{tmp_path / 'old.db'}"
    command.upgrade(alembic_config(url), "0001")
    asyncio.run(_write(url))
    upgrade(url)
    asyncio.run(_check(url))


async def _write(url: str) -> None:
    database = Database(url)
    async with database.transaction() as session:
        for row in ROWS:
            await session.execute(text(row))
    await database.close()


async def _check(url: str) -> None:
    database, organization = Database(url), OrganizationId("org_1")
    files = FileStore(database, FrozenClock(), files_in_use)
    jobs = JobStore(database, FrozenClock(), files, write_event, max_unfinished=1)
    file = await files.get(organization, FileId("file-1"))
    assert (file.filename, file.summary) == ("a.jsonl", {"rows": 1, "messages": 2, "text_tokens": 3})
    job = await jobs.get(organization, JobId("ftjob-1"))
    assert JobView.of(job).method.type == "supervised"
    assert (job.publish_if_worse, job.held_out, job.evaluation_file) == (False, None, None)
    [row] = await jobs.checkpoints(organization, job.id, limit=2, after=None)
    assert CheckpointView.of(row, job, ()).metrics == {"step": 10, "train_loss": 0.5}
    await database.close()
