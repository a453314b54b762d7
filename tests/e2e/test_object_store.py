"""Files, a fine-tune and its adapter through `s3://`, on a platform of its own beside a real S3 server."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import openai
import pytest

from support.servers.object_store import BUCKET, object_store
from support.servers.whole_stack import MODEL, Stack, eventually, private_environment, start, stop

pytestmark = [pytest.mark.long, pytest.mark.timeout(900)]
ROWS = Path(__file__).parents[2] / "deployments" / "recipes" / "tour" / "train.jsonl"


@pytest.fixture(scope="module")
def served() -> Iterator[Path]:
    """The folder that the S3 server shows as its buckets."""
    with tempfile.TemporaryDirectory(prefix="tokenyard-s3-") as folder:
        yield Path(folder) / "s3"


@pytest.fixture(scope="module")
def s3_stack(served: Path) -> Iterator[Stack]:
    with (
        tempfile.TemporaryDirectory(prefix="tokenyard-e2e-", ignore_cleanup_errors=True) as folder,
        object_store(served) as s3,
    ):
        running = start(private_environment(Path(folder)) | s3 | {"TOKENYARD_BLOB_URL": f"s3://{BUCKET}/blobs"})
        yield running
        stop(running)


def test_a_model_is_taught_and_served_from_an_object_store(s3_stack: Stack, served: Path) -> None:
    organization, client = s3_stack.tenant("acme")
    file = client.files.create(file=ROWS, purpose="fine-tune")
    assert client.files.content(file.id).read() == ROWS.read_bytes()
    job = client.fine_tuning.jobs.create(
        model=MODEL,
        training_file=file.id,
        method={"type": "supervised", "supervised": {"hyperparameters": {"n_epochs": 1}}},
    )

    def ended() -> str | None:
        status = client.fine_tuning.jobs.retrieve(job.id).status
        return status if status in {"succeeded", "failed", "cancelled"} else None

    assert eventually(ended, limit_s=300) == "succeeded", client.fine_tuning.jobs.retrieve(job.id).error
    tuned = client.fine_tuning.jobs.retrieve(job.id).fine_tuned_model
    assert tuned
    reply = client.chat.completions.create(
        model=tuned, messages=[{"role": "user", "content": "Who are you?"}], max_tokens=8
    )
    assert reply.model == tuned
    blobs = served / BUCKET / "blobs"
    assert {path.name for path in blobs.rglob("manifest.json")} == {"manifest.json"}
    assert not list(blobs.rglob("*.partial"))
    assert not (s3_stack.data_dir / "blobs").exists()

    client.files.delete(file.id)
    with pytest.raises(openai.NotFoundError):
        client.files.content(file.id)
    eventually(lambda: not list(blobs.glob(f"files/{organization}/{file.id}")), limit_s=120)
    assert s3_stack.command("reconcile").returncode == 0
