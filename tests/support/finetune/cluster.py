"""A cluster that trains nothing: it takes attempts in, and writes into their folders what a test tells it to."""

import hashlib
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from support.finetune.adapter_files import adapter_weights, lora_config
from tokenyard.core.datasets.checking import (
    CheckError,
    CheckResult,
    CheckSpec,
    DataReport,
    FileReport,
    TokenLengths,
)
from tokenyard.core.errors import Unavailable
from tokenyard.core.training import (
    ADAPTER_CONFIG,
    ADAPTER_FOLDER,
    ADAPTER_WEIGHTS,
    BEGUN_FILE,
    CHECKPOINT_FILE,
    CHECKPOINTS_FOLDER,
    MANIFEST_FILE,
    PAUSE_FILE,
    RESULT_FILE,
    RESUME_FOLDER,
    RESUME_POINT_FILE,
    AdapterManifest,
    ResumePoint,
    RunState,
    RunStatus,
    TrainingCheckpoint,
    TrainingError,
    TrainingEvent,
    TrainingResult,
    TrainingSpec,
    TrainingStatus,
    adapter_digest,
    event_file,
    step_folder,
)
from tokenyard.finetune.methods.dataset import InvalidDataset, check_dataset
from tokenyard.finetune.steps.check_files import ENTRYPOINT as CHECK
from tokenyard.storage.blobs import BlobStore

STARTED_AT = 1_750_000_000
_CHECKPOINT = TrainingCheckpoint(
    step_number=10, epoch=1, created_at=STARTED_AT, path="checkpoints/step-10", metrics={"train_loss": 0.5}
)


class TrainingCluster:
    """Answers as Ray's Jobs API does. `down` makes it unreachable.

    Files are checked by the rules of rows, at once or with `holds_checks` when a test says so; a token is a byte.
    """

    def __init__(self, blobs: BlobStore) -> None:
        self._blobs = blobs
        self.down = False
        self.nodes: list[dict[str, float]] | None = None
        self.holds_checks = False
        self.checks: dict[str, CheckSpec] = {}
        self.runs: dict[str, RunStatus] = {}
        self.specs: dict[str, TrainingSpec] = {}
        self.entrypoints: dict[str, str] = {}
        self.submissions: list[str] = []
        self.stops: list[str] = []

    async def free(self) -> Sequence[Mapping[str, float]] | None:
        self._answer()
        return self.nodes

    async def submit(self, submission_id: str, entrypoint: str, *, metadata: Mapping[str, str]) -> None:
        self._answer()
        if submission_id in self.runs:
            return
        url = shlex.split(entrypoint)[-1]
        spec = await self._blobs.read(url.removeprefix(f"{self._blobs.url}/"))
        if entrypoint.startswith(CHECK):
            self.checks[submission_id] = msgspec.json.decode(spec, type=CheckSpec)
            self.runs[submission_id] = RunStatus(RunState.RUNNING)
            if not self.holds_checks:
                await self.check(submission_id)
            return
        self.specs[submission_id] = msgspec.json.decode(spec, type=TrainingSpec)
        self.entrypoints[submission_id] = entrypoint
        self.submissions.append(submission_id)
        self.runs[submission_id] = RunStatus(RunState.RUNNING)

    async def status(self, submission_id: str) -> RunStatus | None:
        self._answer()
        return self.runs.get(submission_id)

    async def stop(self, submission_id: str) -> None:
        self._answer()
        self.stops.append(submission_id)
        if submission_id in self.runs:
            self.runs[submission_id] = RunStatus(RunState.STOPPED)

    def _answer(self) -> None:
        if self.down:
            raise Unavailable("the cluster is away")

    async def check(self, submission: str) -> None:
        """End a check of files."""
        result = await self._checked(self.checks[submission])
        await self.end_check(submission, result)
        self.set_state(submission, RunState.SUCCEEDED if result.error is None else RunState.FAILED)

    async def end_check(self, submission: str, result: CheckResult) -> None:
        """Write what a check has to say."""
        folder = self._path(self.checks[submission].output_url)
        await self._blobs.write(f"{folder}/{RESULT_FILE}", msgspec.json.encode(result))

    async def _checked(self, spec: CheckSpec) -> CheckResult:
        files = {}
        for file, url in spec.files.items():
            try:
                found = await check_dataset(self._blobs.read_stream(self._path(url)))
            except (InvalidDataset, FileNotFoundError) as error:
                return CheckResult(error=CheckError(f"invalid_{file}", f"The {file} cannot be used: {error}", file))
            tokens = found.text_tokens
            lengths = TokenLengths(
                shortest=tokens, median=tokens, p90=tokens, p99=tokens, longest=tokens, rows_up_to={}
            )
            files[file] = FileReport(rows=found.rows, tokens=tokens, learnt=1, lengths=lengths)
        report = DataReport(job=spec.job, checked_at=STARTED_AT, max_seq_length=spec.max_seq_length, files=files)
        return CheckResult(report=report)

    def _path(self, url: str) -> str:
        return url.removeprefix(f"{self._blobs.url}/")

    def set_state(self, submission: str, state: RunState) -> None:
        """Change what the cluster says of a run."""
        self.runs[submission] = RunStatus(state)

    def forget(self, submission: str) -> None:
        """Lose a run with the node that it ran on."""
        del self.runs[submission]

    async def tell(self, submission: str, *messages: str, first: int = 1, total: int | None = None) -> None:
        """Write events of steps, numbered from `first`, each a second after the last."""
        for seq, message in enumerate(messages, first):
            data = {"step": seq, "train_loss": 1.0 / seq} | ({} if total is None else {"total_steps": total})
            event = TrainingEvent(
                seq=seq, created_at=STARTED_AT + seq, level="info", message=message, type="metrics", data=data
            )
            await self._write(submission, event_file(seq), msgspec.json.encode(event))

    async def begin(self, submission: str) -> None:
        """Give a run's workers room."""
        await self._write(submission, BEGUN_FILE, b"{}")

    async def has_to_pause(self, submission: str) -> bool:
        folder = self.specs[submission].output_url.removeprefix(f"{self._blobs.url}/")
        return await self._blobs.exists(f"{folder}/{PAUSE_FILE}")

    async def train(self, submission: str, step: int, *, tokens: int, total_steps: int = 100) -> None:
        """Leave a resume point, and only that one."""
        spec = self.specs[submission]
        await self._blobs.delete(f"{spec.output_url.removeprefix(f'{self._blobs.url}/')}/{RESUME_FOLDER}")
        point = ResumePoint(
            step_number=step, total_steps=total_steps, trained_tokens=tokens, created_at=STARTED_AT + step
        )
        await self._write(
            submission, f"{step_folder(RESUME_FOLDER, step)}/{RESUME_POINT_FILE}", msgspec.json.encode(point)
        )

    async def checkpoint(self, submission: str, step: int, *, seq: int, weights: bytes | None = None) -> None:
        """Leave a checkpoint and tell of it, as event number `seq`."""
        told = msgspec.structs.replace(_CHECKPOINT, step_number=step, path=step_folder(CHECKPOINTS_FOLDER, step))
        rank = self.specs[submission].lora.rank
        await self._write(submission, f"{told.path}/{ADAPTER_WEIGHTS}", weights or adapter_weights(rank=rank))
        await self._write(submission, f"{told.path}/{ADAPTER_CONFIG}", lora_config(rank=rank))
        await self._write(submission, f"{told.path}/{CHECKPOINT_FILE}", msgspec.json.encode(told))
        event = TrainingEvent(
            seq=seq, created_at=STARTED_AT, level="info", message=f"Checkpoint created at step {step}", checkpoint=told
        )
        await self._write(submission, event_file(seq), msgspec.json.encode(event))

    async def pause(self, submission: str, *, tokens: int) -> None:
        """End a run as one that was asked to pause."""
        await self._end(submission, TrainingStatus.PAUSED, tokens=tokens)
        self.set_state(submission, RunState.SUCCEEDED)

    async def succeed(
        self,
        submission: str,
        *,
        tokens: int,
        rank: int = 8,
        checkpoint: TrainingCheckpoint = _CHECKPOINT,
        metrics: Mapping[str, float] = {},
    ) -> None:
        """End a run with an adapter whose manifest and hashes are true."""
        spec = self.specs[submission]
        contents = {ADAPTER_WEIGHTS: submission.encode() * 100, ADAPTER_CONFIG: lora_config(rank=rank)}
        files = {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()}
        manifest = AdapterManifest(
            files=files,
            digest=adapter_digest(files),
            base_model=spec.base_model,
            rank=rank,
            target_modules=("q_proj",),
            base_content_hash="c" * 64,  # as in `ports.SMALL_MODEL`
        )
        for name, content in contents.items():
            await self._write(submission, f"{ADAPTER_FOLDER}/{name}", content)
        await self._write(submission, f"{ADAPTER_FOLDER}/{MANIFEST_FILE}", msgspec.json.encode(manifest))
        await self._end(
            submission,
            TrainingStatus.SUCCEEDED,
            tokens=tokens,
            adapter=ADAPTER_FOLDER,
            digest=manifest.digest,
            checkpoints=(checkpoint,),
            metrics=dict(metrics),
        )
        self.set_state(submission, RunState.SUCCEEDED)

    async def fail(self, submission: str, code: str, message: str, *, retryable: bool = False) -> None:
        """End a run with an error that it could still tell."""
        error = TrainingError(code, message, retryable)
        await self._end(submission, TrainingStatus.FAILED, tokens=0, error=error)
        self.set_state(submission, RunState.FAILED)

    async def stopped_after(self, submission: str, *, tokens: int) -> None:
        """Write the result of a run that was asked to stop and could still say how far it came."""
        await self._end(submission, TrainingStatus.CANCELLED, tokens=tokens)

    async def _end(self, submission: str, status: TrainingStatus, *, tokens: int, **rest: Any) -> None:
        spec = self.specs[submission]
        result = TrainingResult(
            job=spec.job,
            attempt=spec.attempt,
            status=status,
            trained_tokens=tokens,
            started_at=STARTED_AT,
            finished_at=STARTED_AT + 60,
            **rest,
        )
        await self._write(submission, RESULT_FILE, msgspec.json.encode(result))

    async def _write(self, submission: str, name: str, data: bytes) -> None:
        folder = self.specs[submission].output_url.removeprefix(f"{self._blobs.url}/")
        await self._blobs.write(f"{folder}/{name}", data)
