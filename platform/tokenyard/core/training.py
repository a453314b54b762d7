"""What the control plane and a training job tell each other, as JSON files in the attempt's folder.

`jobs/<organization>/<job>/<attempt>/` holds `spec.json` and `pause` (in), `begun`, `events/<seq>.json`,
`checkpoints/step-<n>/`, `resume/step-<n>/`, `adapter/` and, written last, `result.json` (out). What a grader asks of
models lies in `questions/` until the same name is in `answers/`. Nothing else passes between the two.
"""

import hashlib
from collections.abc import Collection, Mapping, Sequence
from enum import StrEnum
from typing import Literal

import msgspec

from tokenyard.core.adapters import LINEAR_LAYERS, AdapterNotAllowed, AdapterRef
from tokenyard.core.graders.shapes import Grader, model_grader_count
from tokenyard.core.ids import JobId, OrganizationId

SPEC_FILE = "spec.json"
RESULT_FILE = "result.json"
EVENTS_FOLDER = "events"
CHECKPOINTS_FOLDER = "checkpoints"
CHECKPOINT_FILE = "checkpoint.json"
RESUME_FOLDER = "resume"
RESUME_POINT_FILE = "point.json"
BEGUN_FILE = "begun"
PAUSE_FILE = "pause"
QUESTIONS_FOLDER = "questions"
ANSWERS_FOLDER = "answers"
ADAPTER_FOLDER = "adapter"

ADAPTER_WEIGHTS = "adapter_model.safetensors"
ADAPTER_CONFIG = "adapter_config.json"
MANIFEST_FILE = "manifest.json"

TrainedMethod = Literal["supervised", "dpo", "reinforcement"]

BASE_LEARNING_RATES: Mapping[str, float] = {"supervised": 4e-4, "dpo": 1e-4, "reinforcement": 1e-4}
"""What a learning_rate_multiplier of 1 means to each method."""
MAX_LEARNING_RATE_MULTIPLIER = 100
MAX_ANSWERED_ROWS = 64
"""Of a validation file, where the model answers each row: it takes as long as its answer."""


Schedule = Literal["linear", "cosine", "constant"]
Strategy = Literal["ddp", "fsdp"]
Quantization = Literal["nf4"]


class Hyperparameters(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """OpenAI's, with every "auto" resolved, and those of ours that were asked for.

    `batch_size` is rows a step over all workers; `beta` is of DPO and of reinforcement fine-tuning, where 0 leaves the
    model free. `warmup_ratio` is a part of all steps.
    `early_stopping_patience` is how many epochs may pass without getting better on the validation file; with it, the
    adapter of the best epoch is kept. `packing` lays the rows of a step behind each other instead of padding them, and
    changes neither which rows those are nor what is learnt. `group_by_length` puts rows of about the same length into a
    step. None stands for the default of training.
    Of reinforcement fine-tuning alone: each row is answered `num_generations` times, with up to
    `max_completion_length` tokens at `temperature`, and `grader` says what an answer is worth.
    """

    n_epochs: int
    batch_size: int
    learning_rate_multiplier: float
    beta: float | None = None
    warmup_ratio: float | None = None
    lr_scheduler_type: Schedule | None = None
    weight_decay: float | None = None
    max_grad_norm: float | None = None
    early_stopping_patience: int | None = None
    packing: bool | None = None
    group_by_length: bool | None = None
    num_generations: int | None = None
    max_completion_length: int | None = None
    temperature: float | None = None
    grader: Grader | None = None

    def most_tokens(self, *, rows: int, tokens: int) -> int:
        """Return the most tokens that are trained on, of a file of so many rows with so many tokens."""
        answers = rows * (self.max_completion_length or 0)
        return self.n_epochs * (self.num_generations or 1) * (tokens + answers)

    def most_questions(self, *, rows: int, held_out_rows: int) -> int:
        """Return how often the grader asks a model at most: of each answer, and after each epoch of held-out ones."""
        if self.grader is None:
            return 0
        held_out = (self.n_epochs + 1) * min(held_out_rows, MAX_ANSWERED_ROWS)
        return model_grader_count(self.grader) * (self.n_epochs * (self.num_generations or 1) * rows + held_out)


class LoraSettings(msgspec.Struct, frozen=True, kw_only=True):
    """What an adapter is. `start` is the fine-tuned model with whose weights it begins; None: with random ones.

    What it adds to a layer is scaled by `alpha / rank`, and with `use_rslora` by `alpha / sqrt(rank)`. `dropout` is of
    training alone.
    """

    rank: int = 8
    alpha: int = 16
    target_modules: tuple[str, ...] = LINEAR_LAYERS
    use_rslora: bool = False
    dropout: float = 0.0
    start: AdapterRef | None = None


class TrainingResources(msgspec.Struct, frozen=True, kw_only=True):
    """What the job asks Ray for. `cpus` and `gpus` are per worker; `threads` 0 means every core of the machine.

    With the `strategy` "ddp" each worker holds the base whole, with "fsdp" the GPUs of all of them hold it together.

    `nice` puts training below serving on a shared machine; `timeout_s` bounds an attempt from when its workers have
    room. A point to go on from is saved when `resume_interval_s` have passed since the last one, and saving takes no
    more than `resume_share` of the time.
    """

    num_workers: int = 1
    cpus: float = 1.0
    gpus: float = 0.0
    strategy: Strategy = "ddp"
    threads: int = 0
    nice: int = 15
    timeout_s: float = 3600.0
    resume_interval_s: float = 15.0
    resume_share: float = 0.05


class TrainingLimits(msgspec.Struct, frozen=True, kw_only=True):
    """What a plan says of fine-tuning; None is the installation's own bound, and for tokens none.

    `running` and `unfinished` count an organization's jobs. `tokens_per_day` are those of its jobs that started within
    a day: what they trained, or may yet.
    """

    running: int | None = None
    unfinished: int | None = None
    tokens_per_day: int | None = None


class TrainingTerms(msgspec.Struct, frozen=True, kw_only=True):
    """What an organization has of training: `weight` is its share where several wait."""

    weight: int = 1
    limits: TrainingLimits = TrainingLimits()


class TrainingSpec(msgspec.Struct, frozen=True, kw_only=True):
    """One attempt at one job. URLs are fsspec URLs; `base_model_path` is a local folder on every training machine.

    `resume_url` is the output folder of an earlier attempt: training goes on from its last resume point.
    Otherwise it begins with the adapter in the folder `start_url`, or where there is none, with random weights.
    `quantization` is how the frozen base is held while the adapter is trained; None: as it is.
    """

    job: JobId
    attempt: int
    organization: OrganizationId
    base_model: str
    base_model_path: str
    training_url: str
    output_url: str
    method: str
    hyperparameters: Hyperparameters
    seed: int
    max_seq_length: int
    max_lora_rank: int
    validation_url: str | None = None
    resume_url: str | None = None
    start_url: str | None = None
    lora: LoraSettings = LoraSettings()
    quantization: Quantization | None = None
    resources: TrainingResources = TrainingResources()


class TrainingCheckpoint(msgspec.Struct, frozen=True, kw_only=True):
    """One epoch's end; `path` is relative to the attempt's folder and holds an adapter's files.

    It is whole when `CHECKPOINT_FILE` is there, too.
    """

    step_number: int
    epoch: int
    created_at: int
    path: str
    metrics: dict[str, float]


class ResumePoint(msgspec.Struct, frozen=True, kw_only=True):
    """Where training goes on from after `step_number` of `total_steps`; its folder is whole when this file is there.

    `trained_tokens` are those of every step up to it, in this attempt and in those before it.
    """

    step_number: int
    total_steps: int
    trained_tokens: int
    created_at: int
    ended_early: bool = False

    @property
    def is_last(self) -> bool:
        """Whether no more steps follow."""
        return self.ended_early or self.step_number >= self.total_steps


class TrainingEvent(msgspec.Struct, frozen=True, kw_only=True):
    """One line of the job's story; `seq` counts from 1 in each attempt, `created_at` is unix seconds.

    `data` of a `metrics` event has `step`, `total_steps`, `epoch`, `train_loss`, `train_mean_token_accuracy`, and at
    the end of an epoch `full_valid_loss` and `full_valid_mean_token_accuracy` where there is a validation file. With
    DPO the accuracy is of the preferred answers, and there are `train_reward_accuracy`, `train_reward_margin`,
    `train_reward_preferred`, `train_reward_non_preferred`, and of the validation file the first two of them.
    Reinforcement fine-tuning has `train_reward`, `train_reward_std`, `train_completion_length` in tokens, and with a
    `beta`, `train_kl`; and of the validation file `full_valid_reward`.
    `checkpoint` is one that is whole since just now.
    """

    seq: int
    created_at: int
    level: Literal["info", "warn", "error"]
    message: str
    type: Literal["message", "metrics"] = "message"
    data: dict[str, int | float] = msgspec.field(default_factory=dict)
    checkpoint: TrainingCheckpoint | None = None


class TrainingStatus(StrEnum):
    """How an attempt ended. One that was killed leaves no result at all."""

    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"  # by a signal; the attempt cannot know whose it was
    PAUSED = "paused"  # as it was asked to, with a resume point of its last step


INTERRUPTED = "training_interrupted"
"""The code of an error that says no more than that something broke."""


class TrainingError(msgspec.Struct, frozen=True):
    """Why an attempt failed, in words for the tenant; `code` is stable. `retryable` means the data is not to blame."""

    code: str
    message: str
    retryable: bool = False


def best_checkpoint(checkpoints: Sequence[TrainingCheckpoint]) -> TrainingCheckpoint:
    """Return the one that is best on the validation file, the earlier of two; there must be one."""
    return max(checkpoints, key=lambda checkpoint: merit(checkpoint.metrics, "valid_"))


def merit(figures: Mapping[str, float], prefix: str = "") -> float:
    """Return how good a model is on held-out rows, the higher the better; its figures' names may have a prefix."""
    name = deciding_figure(figures, prefix)
    return figures[name] if name == f"{prefix}reward" else -figures[name]


def deciding_figure(figures: Mapping[str, float], prefix: str = "") -> str:
    """Return the name of the figure that says how good a model is: its reward, or where there is none, its loss."""
    return f"{prefix}reward" if f"{prefix}reward" in figures else f"{prefix}loss"


class TrainingResult(msgspec.Struct, frozen=True, kw_only=True):
    """The end of an attempt.

    `trained_tokens` is, over every row that was trained on, the tokens of the whole rendered conversation (cut at
    `max_seq_length`), once for each epoch, up to the last resume point: what earlier attempts trained counts, work
    done twice does not. `checkpoints` are this attempt's.
    A row of DPO is two conversations, each with its prompt: the prompt's tokens count twice. With reinforcement
    fine-tuning, prompt and answer of each generation count, as generated.
    `metrics` has `train_loss`, `train_mean_token_accuracy` and, with a validation file, `valid_loss`,
    `valid_mean_token_accuracy`, and of the base model on the same rows `base_valid_loss` and
    `base_valid_mean_token_accuracy`; with DPO, the reference stands for the base, and it has no accuracy;
    with reinforcement fine-tuning, there are `train_reward`, `valid_reward` and `base_valid_reward`. `adapter` is
    relative to the attempt's folder.
    """

    job: JobId
    attempt: int
    status: TrainingStatus
    trained_tokens: int
    started_at: int
    finished_at: int
    metrics: dict[str, float] = msgspec.field(default_factory=dict)
    checkpoints: tuple[TrainingCheckpoint, ...] = ()
    adapter: str | None = None
    digest: str | None = None
    error: TrainingError | None = None


def check_adapter_files(names: Collection[str]) -> None:
    """Raise `AdapterNotAllowed` where these are not exactly the files of an adapter: no pickle, no code."""
    if set(names) != {ADAPTER_WEIGHTS, ADAPTER_CONFIG}:
        message = f"An adapter is {ADAPTER_WEIGHTS} and {ADAPTER_CONFIG}, nothing else."
        raise AdapterNotAllowed("adapter_damaged", message)


class AdapterManifest(msgspec.Struct, frozen=True, kw_only=True):
    """`manifest.json`, written last: the adapter is published when it is there. `files` maps name to SHA-256.

    `base_content_hash` is of the base that it changes, and alone decides where it is served; in one that was made
    before there were such hashes it is None, and `base_model` decides.
    """

    files: dict[str, str]
    digest: str
    base_model: str
    rank: int
    target_modules: tuple[str, ...]
    base_content_hash: str | None = None


def adapter_digest(files: Mapping[str, str]) -> str:
    """Return the SHA-256 over the sorted `name sha256` lines of an adapter's files."""
    lines = "".join(f"{name} {files[name]}\n" for name in sorted(files))
    return hashlib.sha256(lines.encode()).hexdigest()


def attempts_folder(organization: OrganizationId, job: JobId) -> str:
    """Return the folder of all attempts of a job, which nobody needs once it has ended."""
    return f"jobs/{organization}/{job}"


def job_folder(organization: OrganizationId, job: JobId, attempt: int) -> str:
    """Return the folder of one attempt; 0 is for an adapter from before all of them.

    That is one that is taken in without training, or one with which training begins.
    """
    return f"{attempts_folder(organization, job)}/{attempt}"


def submission_id(job: JobId, attempt: int) -> str:
    """Return the id under which Ray knows the attempt."""
    return f"{job}-{attempt}"


def step_folder(parent: str, step: int) -> str:
    """Return the folder of a step under `parent`; names sort as the numbers do."""
    return f"{parent}/step-{step:08d}"


def event_file(seq: int) -> str:
    """Return an event's path in the attempt's folder; names sort as the numbers do."""
    return f"{EVENTS_FOLDER}/{seq:08d}.json"


class RunState(StrEnum):
    """The cluster's own word for it; `pending` waits for room, the last three are ends."""

    PENDING = "pending"
    RUNNING = "running"
    STOPPED = "stopped"
    SUCCEEDED = "succeeded"
    FAILED = "failed"

    @property
    def is_active(self) -> bool:
        return self in (RunState.PENDING, RunState.RUNNING)


class RunStatus(msgspec.Struct, frozen=True):
    """`message` is for the operator's log; it may show the inside and never goes to a tenant."""

    state: RunState
    message: str = ""
