"""The base models this installation serves: one file each, named by the settings."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from tokenyard.core.adapters import AdapterRules, BaseShapes, shapes_of
from tokenyard.core.model_files.reading import read_model_spec
from tokenyard.core.models import BaseModel, InvalidModelSpec, ModelSpec


class _TextConfig(msgspec.Struct, frozen=True):
    vocab_size: int | None = None


class _ModelConfig(_TextConfig, frozen=True):
    """Of a model's `config.json`; one that takes more than text has its `text_config` apart."""

    text_config: _TextConfig | None = None


class BaseModels:
    """Base models by id, in memory. Whoever holds it sees those that are put in their place."""

    def __init__(self, specs: Sequence[ModelSpec], models_folder: Path) -> None:
        """Take the descriptions and the folder that holds each model's files in a folder of its id.

        Raises:
            InvalidModelSpec: two have one id, or a fallback is not among those that are served elsewhere.
        """
        self._folder = models_folder
        self._specs: Mapping[str, ModelSpec] = {}
        self._models: dict[str, BaseModel] = {}
        self.replace(specs)

    def replace(self, specs: Sequence[ModelSpec]) -> None:
        """Serve these from now on, and no others. Raises as the constructor does; then nothing has changed."""
        by_id = {spec.id: spec for spec in specs}
        if len(by_id) < len(specs):
            raise InvalidModelSpec("two of the served models have the same id")
        elsewhere = {spec.id: _base_model(spec, self._folder) for spec in specs if spec.server is not None}
        models = {
            spec.id: elsewhere.get(spec.id) or _base_model(spec, self._folder, _fallback(spec, elsewhere))
            for spec in specs
        }
        self._specs, self._models = by_id, models

    @classmethod
    def load(cls, ids: Sequence[str], specs_folder: Path, models_folder: Path) -> "BaseModels":
        """Read `<specs_folder>/<id>.yaml` for each id; one that is missing or wrong raises `InvalidModelSpec`."""
        return cls(load_specs(ids, specs_folder), models_folder)

    def get(self, model: str) -> BaseModel | None:
        return self._models.get(model)

    def all(self) -> list[BaseModel]:
        """Return all of them, in the order of the settings."""
        return list(self._models.values())

    def rules(self, model: str) -> AdapterRules:
        """Return what an adapter of the model may be; of one that serves none, or is not served, it may be nothing."""
        spec = self._specs.get(model)
        return AdapterRules(max_rank=0) if spec is None or spec.lora is None else spec.lora.rules

    def shapes(self, model: str) -> BaseShapes | None:
        """Read the shapes of the model's weights; None where its folder is not on this machine."""
        shapes: dict[str, tuple[int, ...] | None] = {}
        for path in sorted((self._folder / model).glob("*.safetensors")):
            with path.open("rb") as file:
                shapes |= shapes_of(file)
        return shapes or None


def load_specs(ids: Sequence[str], folder: Path) -> list[ModelSpec]:
    """Read `<folder>/<id>.yaml` for each id; one that is missing or wrong raises `InvalidModelSpec`."""
    return [_read(folder / f"{model}.yaml", model) for model in ids]


def _read(path: Path, model: str) -> ModelSpec:
    try:
        spec = read_model_spec(path.read_bytes())
    except FileNotFoundError:
        raise InvalidModelSpec(f"there is no description of the model {model}: {path} is missing") from None
    if spec.id != model:
        raise InvalidModelSpec(f"{path} describes {spec.id!r}, not {model!r}")
    return spec


def _vocabulary_size(folder: Path) -> int | None:
    """Return how many token ids there are, or None where the model's folder is not on this machine or does not say."""
    try:
        config = msgspec.json.decode((folder / "config.json").read_bytes(), type=_ModelConfig)
    except (OSError, msgspec.MsgspecError):
        return None
    return (config.text_config or config).vocab_size


def _fallback(spec: ModelSpec, elsewhere: Mapping[str, BaseModel]) -> BaseModel | None:
    if spec.fallback is not None and spec.fallback not in elsewhere:
        raise InvalidModelSpec(f"model {spec.id}: its fallback {spec.fallback!r} is no served model that is elsewhere")
    return None if spec.fallback is None else elsewhere[spec.fallback]


def _base_model(spec: ModelSpec, models_folder: Path, fallback: BaseModel | None = None) -> BaseModel:
    return BaseModel(
        id=spec.id,
        path=str(models_folder / spec.id),
        context_length=spec.context_length,
        default_max_tokens=spec.default_max_tokens,
        template_tokens=spec.template_tokens,
        template_tokens_per_message=spec.template_tokens_per_message,
        max_lora_rank=0 if spec.lora is None else spec.lora.max_lora_rank,
        created=spec.created,
        task=spec.task,
        dimensions=spec.dimensions,
        sampling=spec.sampling,
        training=spec.training,
        calls_tools=spec.calls_tools,
        reasons=spec.reasoning is not None,
        images=spec.images,
        vocabulary_size=_vocabulary_size(models_folder / spec.id),
        content_hash=spec.content_hash,
        # A replica itself gives up what has not begun after once as long.
        max_silence_s=2 * spec.max_wait_s,
        max_request_s=spec.max_request_s,
        server=spec.server,
        fallback=fallback,
        waking=spec.waking,
    )
