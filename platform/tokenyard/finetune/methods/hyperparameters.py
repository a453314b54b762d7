"""What a client may set for training, and what "auto" comes to."""

from typing import Annotated

from pydantic import BaseModel, BeforeValidator, Field
from pydantic_core import PydanticCustomError

from tokenyard.core.adapters import MAX_ALPHA, AdapterNotAllowed, AdapterRules
from tokenyard.core.errors import InvalidRequest
from tokenyard.core.training import MAX_LEARNING_RATE_MULTIPLIER, Hyperparameters, LoraSettings, Schedule

MAX_EPOCHS = 50
MAX_BATCH_SIZE = 256
MAX_RANK = 512
_FIELD_OF = {"rank_not_allowed": "rank", "module_not_allowed": "target_modules", "alpha_not_allowed": "alpha"}


def count_up_to(highest: int) -> BeforeValidator:
    """Take "auto" or a whole number from 1."""

    def check(value: object) -> object:
        if value == "auto":
            return value
        if isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= highest:
            return value
        raise PydanticCustomError("auto_or_count", f'must be "auto" or a whole number from 1 to {highest}')

    return BeforeValidator(check)


def number_up_to(highest: float) -> BeforeValidator:
    """Take "auto" or a number above 0."""

    def check(value: object) -> object:
        if value == "auto":
            return value
        if isinstance(value, int | float) and not isinstance(value, bool) and 0 < value <= highest:
            return value
        raise PydanticCustomError("auto_or_positive", f'must be "auto" or a number above 0, up to {highest}')

    return BeforeValidator(check)


def _auto_epochs(rows: int) -> int:
    return max(1, min(10, round(400 / max(1, rows))))


def _auto_batch(rows: int) -> int:
    """Return about a 25th of the rows: an epoch of fewer steps than that learns next to nothing (measured, ADR 50)."""
    return max(2, min(32, rows // 25))


class RequestedHyperparameters(BaseModel, extra="forbid"):
    """OpenAI's three come first; the others are ours, under the names that PEFT and transformers use."""

    n_epochs: Annotated[int | str, count_up_to(MAX_EPOCHS)] = "auto"
    batch_size: Annotated[int | str, count_up_to(MAX_BATCH_SIZE)] = "auto"
    learning_rate_multiplier: Annotated[float | str, number_up_to(MAX_LEARNING_RATE_MULTIPLIER)] = "auto"

    rank: Annotated[int | str | None, count_up_to(MAX_RANK)] = None
    alpha: Annotated[int | str | None, count_up_to(MAX_ALPHA)] = None
    target_modules: list[str] | None = Field(default=None, min_length=1, max_length=32)
    use_rslora: bool | None = None
    use_dora: bool | None = None
    dropout: float | None = Field(default=None, ge=0, lt=1, strict=True)
    warmup_ratio: float | None = Field(default=None, ge=0, lt=1, strict=True)
    lr_scheduler_type: Schedule | None = None
    weight_decay: float | None = Field(default=None, ge=0, le=1, strict=True)
    max_grad_norm: float | None = Field(default=None, gt=0, le=1000, strict=True)
    early_stopping_patience: int | None = Field(default=None, ge=1, le=MAX_EPOCHS, strict=True)
    packing: bool | None = Field(default=None, strict=True)
    group_by_length: bool | None = Field(default=None, strict=True)

    def resolved(self, rows: int, *, auto_multiplier: float) -> Hyperparameters:
        """Return them with every "auto" decided: small datasets get many epochs and large ones few.

        No batch has more rows than there are. `auto_multiplier` is what the model's file says of the learning rate.
        """
        epochs, batch, multiplier = self.n_epochs, self.batch_size, self.learning_rate_multiplier
        return Hyperparameters(
            n_epochs=_auto_epochs(rows) if epochs == "auto" else int(epochs),
            batch_size=max(1, min(rows, _auto_batch(rows) if batch == "auto" else int(batch))),
            learning_rate_multiplier=auto_multiplier if multiplier == "auto" else float(multiplier),
            warmup_ratio=self.warmup_ratio,
            lr_scheduler_type=self.lr_scheduler_type,
            weight_decay=self.weight_decay,
            max_grad_norm=self.max_grad_norm,
            early_stopping_patience=self.early_stopping_patience,
            packing=self.packing,
            group_by_length=self.group_by_length,
        )

    def steps(self, wanted: Hyperparameters, rows: int) -> int:
        """Return how many steps training will have; `wanted` are these, resolved."""
        return wanted.n_epochs * -(-rows // wanted.batch_size)

    def lora(self, rules: AdapterRules, start: LoraSettings | None, *, where: str) -> LoraSettings:
        """Return what the adapter will be: as asked for, else as the one that it starts from is, else by default.

        `where` is the field of the request that these stand in. Raises `InvalidRequest` where replicas would not take
        such an adapter, the one that it starts from is another, or something is asked for that there is not.
        """
        self.check_offered(where)
        lora = self._continued(start, where) if start is not None else self._new(rules)
        config = {
            "peft_type": "LORA",
            "r": lora.rank,
            "lora_alpha": lora.alpha,
            "target_modules": list(lora.target_modules),
        }
        try:
            rules.check(config)
        except AdapterNotAllowed as refused:
            param = "model" if start is not None else f"{where}.{_FIELD_OF.get(refused.code, 'rank')}"
            raise InvalidRequest(refused.message, code=refused.code, param=param) from refused
        return lora

    def check_offered(self, where: str) -> None:
        """Raise `InvalidRequest` where something is asked for that there is not."""
        if self.use_dora:
            message = "Adapters with DoRA cannot be served: vLLM does not know them."
            raise InvalidRequest(message, code="adapter_unsupported", param=f"{where}.use_dora")
        if self.group_by_length and self.packs:
            message = "Rows are packed, so that hardly any padding is left to save: this needs `packing` to be false."
            raise InvalidRequest(message, param=f"{where}.group_by_length")

    @property
    def packs(self) -> bool:
        """Whether rows are laid behind each other, where the model allows it."""
        return self.packing is not False

    def _new(self, rules: AdapterRules) -> LoraSettings:
        plain = LoraSettings()
        rank = self.rank if isinstance(self.rank, int) else min(plain.rank, rules.max_rank)
        auto_alpha = 2 * rank if isinstance(self.rank, int) else plain.alpha
        modules = rules.target_modules if self.target_modules is None else tuple(sorted(set(self.target_modules)))
        return LoraSettings(
            rank=rank,
            alpha=self.alpha if isinstance(self.alpha, int) else auto_alpha,
            target_modules=modules,
            use_rslora=self.use_rslora or False,
            dropout=self.dropout or 0.0,
        )

    def _continued(self, start: LoraSettings, where: str) -> LoraSettings:
        modules = None if self.target_modules is None else set(self.target_modules)
        asked = {
            "rank": (self.rank, start.rank),
            "alpha": (self.alpha, start.alpha),
            "target_modules": (modules, set(start.target_modules)),
            "use_rslora": (self.use_rslora, start.use_rslora),
        }
        for name, (wanted, there) in asked.items():
            if wanted not in (None, "auto", there):
                said = ", ".join(sorted(there)) if isinstance(there, set) else there
                raise InvalidRequest(
                    f"Training goes on with the adapter of a fine-tuned model, whose {name} is {said}.",
                    param=f"{where}.{name}",
                )
        return LoraSettings(
            rank=start.rank,
            alpha=start.alpha,
            target_modules=start.target_modules,
            use_rslora=start.use_rslora,
            dropout=self.dropout or 0.0,
            start=start.start,
        )
