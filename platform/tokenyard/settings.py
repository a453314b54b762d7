"""All settings of one installation, from the environment (`TOKENYARD_...`); the defaults are the embedded ones."""

import hashlib
import hmac
import json
from ipaddress import ip_network
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, SecretStr, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from tokenyard.core.training import Strategy

_PACKAGE = Path(__file__).parent


def shipped(folder: str) -> Path:
    """Return a folder that ships with Tokenyard, such as `billing/prices`: from the source tree or from the wheel."""
    source = _PACKAGE.parent.parent / folder
    return source if source.is_dir() else _PACKAGE / "shipped" / folder


class Settings(BaseSettings):
    """Read once, in `bootstrap`, and passed on from there. Empty URLs mean the embedded part in `data_dir`."""

    model_config = SettingsConfigDict(env_prefix="TOKENYARD_", frozen=True, extra="forbid")

    data_dir: Path = Field(default_factory=lambda: Path.home() / ".tokenyard")
    database_url: str = ""
    redis_url: str = ""  # one server, Sentinel or a cluster: `metering/connection.py`
    blob_url: str = ""
    secret: SecretStr = SecretStr("")
    models_dir: Path = Field(default_factory=lambda: shipped("deployments/models"))
    models_path: str = ""
    prices_dir: Path = Field(default_factory=lambda: shipped("billing/prices"))

    host: str = "127.0.0.1"
    api_url: str = ""
    gateway_port: int = 8000
    dashboard_port: int = 8080
    dashboard_over_https: bool = False
    serve_port: int = 8001
    worker_port: int = 8002
    valkey_port: int = 6390
    # Beyond it nothing new is let in, and what was let in waits on the disk for room: no process is ended for memory.
    valkey_memory_bytes: int = 2 * 1024 * 1024 * 1024
    ray_gcs_port: int = 6391
    ray_dashboard_port: int = 8265
    ray_url: str = ""
    ray_token_file: Path = Field(default_factory=lambda: Path.home() / ".ray" / "auth_token")

    models: Annotated[tuple[str, ...], NoDecode] = ("smollm2-135m-instruct",)
    # Of servers elsewhere: the keys by the names that model files give them, and the hosts that may go without TLS.
    server_keys: dict[str, SecretStr] = {}
    plain_http_servers: Annotated[tuple[str, ...], NoDecode] = ()
    opening_credit_dollars: str = "5"
    hold_lease_ms: int = 30_000
    hold_renewal_ms: int = 5_000
    replica_report_wait_ms: int = 60_000
    # Invoices: who issues them, how their numbers begin, how many hours after its end a period closes, and in how many
    # days what is due is to be paid.
    invoice_issuer: Annotated[str, Field(min_length=1, max_length=128)] = "tokenyard"
    invoice_prefix: Annotated[str, Field(pattern="^[A-Z0-9-]{1,16}$")] = "INV"
    credit_note_prefix: Annotated[str, Field(pattern="^[A-Z0-9-]{1,16}$")] = "CN"
    close_after_hours: int = Field(default=24, ge=0)
    payment_days: int = Field(default=30, ge=0)
    # Days after it was due on which an invoice is dunned, such as 0,3,7,14; the last one blocks its organization. None:
    # nobody is ever blocked for what it owes.
    dunning_days: Annotated[tuple[int, ...], NoDecode] = ()
    # Stripe takes payments where a secret key is set; webhooks come to /webhooks/stripe.
    stripe_secret_key: SecretStr = SecretStr("")
    stripe_webhook_secret: SecretStr = SecretStr("")
    stripe_api_url: str = ""
    # Where people come back to from the pages of the provider of payments.
    payment_return_url: str = ""
    # A folder of further fonts for documents: Chinese, Japanese, Korean, Arabic and other scripts need one.
    document_fonts_dir: Path | None = None
    max_upload_bytes: int = 512 * 1024 * 1024
    # Of its files and fine-tuned models together.
    files_bytes_per_organization: int = 20 * 1024 * 1024 * 1024
    max_request_bytes: int = 4 * 1024 * 1024

    # Responses and chat completions that are kept for their clients.
    stored_answers_days: int = 30
    stored_answers_bytes_per_organization: int = 1024 * 1024 * 1024

    # Evals with their runs, whose runs are kept as long.
    evals_bytes_per_organization: int = 256 * 1024 * 1024

    # Webhooks: networks (CIDR) that they may go to although these are not public, and whether they may go without TLS.
    webhook_networks: Annotated[tuple[str, ...], NoDecode] = ()
    webhook_plain_http: bool = False

    # Of each gateway process, to one client or organization and in all.
    max_connections: int = 4096
    max_connections_per_address: int = 512
    trusted_proxies: Annotated[tuple[str, ...], NoDecode] = ()
    keep_alive_s: int = 75  # of an idle connection; usual balancers keep theirs for 60
    header_timeout_s: float = 10.0
    upload_grace_s: float = 20.0
    min_upload_bytes_per_s: float = 16 * 1024
    max_in_flight: int = 4096
    max_in_flight_per_organization: int = 1024
    max_in_flight_bytes: int = 128 * 1024 * 1024
    max_in_flight_bytes_per_organization: int = 32 * 1024 * 1024
    # In Redis, of replies under idempotency keys.
    max_kept_reply_bytes_per_organization: int = 16 * 1024 * 1024

    # What is kept of fine-tuned models that were deleted, and of the folders of jobs that have ended.
    retired_adapters_days: int = Field(default=0, ge=0)
    job_folders_days: int = Field(default=1, ge=1)

    # May their owners take the files of fine-tuned models along?
    adapter_downloads: bool = True

    # A job trains on so many workers at once, each with so many CPUs and GPUs. With "ddp" each holds the base whole,
    # with "fsdp" their GPUs hold it together.
    training_workers: int = Field(default=1, ge=1)
    training_num_cpus: float = 1.0
    training_num_gpus: float = 0.0
    training_strategy: Strategy = "ddp"
    # Models whose frozen base is held in four bits (NF4, by bitsandbytes) while an adapter is trained over it.
    training_quantized_models: Annotated[tuple[str, ...], NoDecode] = ()
    training_timeout_s: int = 3600
    # At most so many jobs at once; "auto": as the cluster has room. One that grows with what is submitted is asked for
    # no room, so it needs a number.
    training_max_running: Annotated[int, Field(ge=1)] | Literal["auto"] = "auto"
    training_autoscaled: bool = False
    training_max_running_per_organization: int = Field(default=3, ge=1)

    @field_validator(
        *("models", "trusted_proxies", "plain_http_servers", "training_quantized_models", "webhook_networks"),
        "dunning_days",
        mode="before",
    )
    @classmethod
    def _split_names(cls, value: object) -> object:
        """Take `a,b` as well as JSON's `["a", "b"]`."""
        if not isinstance(value, str):
            return value
        if value.lstrip().startswith("["):
            return json.loads(value)
        return [name.strip() for name in value.split(",") if name.strip()]

    @property
    def effective_database_url(self) -> str:
        return self.database_url or f"sqlite+aiosqlite:///{self.data_dir / 'tokenyard.db'}"

    @property
    def effective_redis_url(self) -> str:
        return self.redis_url or f"redis://127.0.0.1:{self.valkey_port}/0"

    @property
    def effective_blob_url(self) -> str:
        """An fsspec URL: `file:///...` or `s3://bucket/prefix`."""
        return self.blob_url or f"file://{self.data_dir.absolute() / 'blobs'}"

    @property
    def effective_models_path(self) -> Path:
        """The folder that holds each base model's files in a folder of its id."""
        return Path(self.models_path) if self.models_path else self.data_dir.absolute() / "models"

    @property
    def effective_training_max_running(self) -> int | None:
        """None is no bound. A Ray of our own has logical CPUs, which say nothing of what the machine can bear."""
        if self.training_max_running != "auto":
            return self.training_max_running
        return None if self.ray_url else 1

    @field_validator("webhook_networks")
    @classmethod
    def _are_networks(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for network in value:
            ip_network(network)
        return value

    @model_validator(mode="after")
    def _told_by_stripe(self) -> Self:
        if self.stripe_secret_key.get_secret_value() and not self.stripe_webhook_secret.get_secret_value():
            raise ValueError("stripe_secret_key needs the stripe_webhook_secret of its endpoint")
        return self

    @model_validator(mode="after")
    def _bounded_where_it_grows(self) -> Self:
        if self.training_autoscaled and self.training_max_running == "auto":
            raise ValueError("training_autoscaled needs a number as training_max_running")
        return self

    @model_validator(mode="after")
    def _spread_over_gpus(self) -> Self:
        if self.training_strategy == "fsdp" and (self.training_workers < 2 or self.training_num_gpus < 1):
            raise ValueError("training_strategy fsdp needs at least two training_workers with training_num_gpus of 1")
        return self

    @model_validator(mode="after")
    def _quantized_on_gpus(self) -> Self:
        if self.training_quantized_models and (self.training_num_gpus <= 0 or self.training_strategy == "fsdp"):
            raise ValueError("training_quantized_models need training_num_gpus, and training_strategy ddp")
        return self

    @property
    def effective_ray_url(self) -> str:
        """Ray's dashboard, which carries the Jobs and Serve APIs."""
        return self.ray_url or f"http://127.0.0.1:{self.ray_dashboard_port}"

    @property
    def effective_api_url(self) -> str:
        """Where the command line and the dashboard find the gateway."""
        return self.api_url or self.local_url(self.gateway_port)

    @property
    def stored_answers_ms(self) -> int:
        return self.stored_answers_days * 86_400_000

    @property
    def retired_adapters_ms(self) -> int:
        return self.retired_adapters_days * 86_400_000

    @property
    def job_folders_ms(self) -> int:
        return self.job_folders_days * 86_400_000

    def local_url(self, port: int) -> str:
        """Return how this machine reaches one of our own ports."""
        host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(self.host, self.host)  # noqa: S104 - compared only
        return f"http://{host}:{port}"

    def derived_secret(self, purpose: str) -> bytes:
        """Return a 32-byte secret for one purpose, so that no secret is used for two things.

        Purposes in use: `api-key-pepper-1`, `meter`, `cache-salt`, `replica-bearer`, `dashboard-session`,
        `end-user`, `stored-answers`, `idempotent-replies`, `lent-keys`, `evals`, `webhooks`.

        Raises:
            ValueError: no installation secret is set (`TOKENYARD_SECRET`; `tokenyard up` makes one).
        """
        master = self.secret.get_secret_value()
        if len(master) < 32:
            raise ValueError("TOKENYARD_SECRET must be set to at least 32 random characters")
        return hmac.new(master.encode(), purpose.encode(), hashlib.sha256).digest()
