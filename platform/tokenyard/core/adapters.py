"""Adapters: how they are named and found, and what one may be. The only place that says so."""

import math
import re
from collections import deque
from collections.abc import Mapping
from typing import BinaryIO

import msgspec

from tokenyard.core.ids import AdapterId

LINEAR_LAYERS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
ENGINE_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
"""The bounds of a rank that vLLM can be started with."""

_SUFFIX = re.compile(r"[a-z0-9][a-z0-9-]{0,63}")
_PATH = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.-]*(/[A-Za-z0-9_-][A-Za-z0-9_.-]*)+")
_DIGEST = re.compile(r"[0-9a-f]{64}")
_CHECKPOINT = "ckpt-step-"
_STEP = re.compile(rf"{_CHECKPOINT}([1-9][0-9]{{0,9}})")
_UNSUPPORTED = (
    *(
        "use_dora",
        "use_qalora",
        "use_bdlora",
        "lora_bias",
        "fan_in_fan_out",
        "modules_to_save",
        "rank_pattern",
    ),
    *("alpha_pattern", "layers_to_transform", "layers_pattern", "layer_replication", "exclude_modules"),
    *("target_parameters", "trainable_token_indices", "alora_invocation_tokens", "megatron_config", "auto_mapping"),
)
# Other ways to begin change the base model's own weights, so that the adapter alone is not what was trained.
_PLAIN: Mapping[str, tuple[object, ...]] = {
    "bias": ("none", None),
    "task_type": ("CAUSAL_LM", None),
    "init_lora_weights": (True, False, None, "gaussian", "eva", "orthogonal"),
}
MAX_ALPHA = 65_536
MAX_ADAPTER_BYTES = 4 << 30
MAX_HEADER_BYTES = 8 << 20
"""Of an adapter's weights: about 150 bytes for each of them."""
_MAX_BASE_HEADER_BYTES = 100 << 20  # the format's own bound

_WEIGHT = re.compile(
    r"base_model\.model\.(?P<module>[A-Za-z0-9_.]{1,200}\.(?P<layer>[a-z0-9_]+))\.lora_(?P<side>[AB])\.weight"
)
_BYTES_OF = {"F32": 4, "F16": 2, "BF16": 2}
_FINITE_F16 = bytes(byte for byte in range(256) if byte & 0x7C != 0x7C)
_NOT_JSON = (msgspec.MsgspecError, RecursionError, UnicodeDecodeError)
_PACKED = ("qweight", "weight_packed")

BaseShapes = Mapping[str, tuple[int, ...] | None]
"""Of the weights of a base model, by name; None where a weight is packed, so that its shape is not the layer's."""


class Tensor(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One entry of a safetensors header; the offsets are of bytes behind the header."""

    dtype: str
    shape: tuple[int, ...]
    data_offsets: tuple[int, int]

    @property
    def start(self) -> int:
        return self.data_offsets[0]

    @property
    def end(self) -> int:
        return self.data_offsets[1]


class FineTunedName(msgspec.Struct, frozen=True):
    """The public name of a fine-tuned model, `ft:<base>:<organization>:<suffix>:<id>`; `organization` is a slug.

    That of a checkpoint ends in `:ckpt-step-<step>` besides; `id` is that of the model it was to become.
    """

    base: str
    organization: str
    suffix: str
    id: AdapterId
    step: int | None = None

    def __str__(self) -> str:
        model = f"ft:{self.base}:{self.organization}:{self.suffix}:{self.id}"
        return model if self.step is None else f"{model}:{_CHECKPOINT}{self.step}"

    @property
    def adapter(self) -> AdapterId:
        """The id of the adapter that is called so."""
        return self.id if self.step is None else AdapterId(f"{self.id}-step-{self.step}")

    def at_step(self, step: int) -> "FineTunedName":
        """Return the name of the model's checkpoint at a step."""
        return msgspec.structs.replace(self, step=step)


def parse_fine_tuned(name: str) -> FineTunedName | None:
    parts = name.split(":")
    if len(parts) not in (5, 6) or parts[0] != "ft":
        return None
    if len(parts) == 5:
        return FineTunedName(parts[1], parts[2], parts[3], AdapterId(parts[4]))
    found = _STEP.fullmatch(parts[5])
    return None if found is None else FineTunedName(parts[1], parts[2], parts[3], AdapterId(parts[4]), int(found[1]))


def valid_suffix(suffix: str) -> bool:
    """Tell whether `suffix` may stand in a model's name: 1 to 64 of a-z, 0-9 and `-`."""
    return _SUFFIX.fullmatch(suffix) is not None


class AdapterRef(msgspec.Struct, frozen=True):
    """Where a replica finds an adapter: `<blob root>/<path>`, and the hash its manifest must show."""

    id: AdapterId
    name: str
    path: str
    digest: str

    @property
    def well_formed(self) -> bool:
        """Whether `path` stays under the blob root and `digest` is a SHA-256."""
        return _PATH.fullmatch(self.path) is not None and _DIGEST.fullmatch(self.digest) is not None


class AdapterNotAllowed(ValueError):
    """An adapter breaks a rule. `code` is stable, `message` is for its tenant."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


class AdapterRules(msgspec.Struct, frozen=True):
    """What an adapter may be, wherever it comes from: uploads, training's gate and replicas all ask here."""

    max_rank: int
    target_modules: tuple[str, ...] = LINEAR_LAYERS

    def check(self, config: Mapping[str, object]) -> int:
        """Check PEFT's `adapter_config.json`; return the rank.

        Raises:
            AdapterNotAllowed: not a LoRA adapter, or one of a kind, rank or layers that are not served.
        """
        rank, modules, alpha = config.get("r"), config.get("target_modules"), config.get("lora_alpha", 1)
        if config.get("peft_type") != "LORA":
            raise AdapterNotAllowed("adapter_unsupported", "It is not a LoRA adapter.")
        if not isinstance(rank, int) or isinstance(rank, bool) or not 0 < rank <= self.max_rank:
            raise self._rank_not_allowed(rank)
        if not isinstance(modules, list) or not modules or not set(map(str, modules)) <= set(self.target_modules):
            raise self._module_not_allowed()
        if not isinstance(alpha, int) or isinstance(alpha, bool) or not 0 < alpha <= MAX_ALPHA:
            raise AdapterNotAllowed("alpha_not_allowed", f"`lora_alpha` must be a whole number from 1 to {MAX_ALPHA}.")
        used = [name for name in _UNSUPPORTED if config.get(name)]
        used += [name for name, plain in _PLAIN.items() if name in config and config[name] not in plain]
        if used:
            raise AdapterNotAllowed("adapter_unsupported", f"Not supported in an adapter: {', '.join(used)}.")
        return rank

    def read(self, config: bytes) -> int:
        """Read an `adapter_config.json` and check it as `check` does."""
        try:
            return self.check(msgspec.json.decode(config, type=dict[str, object]))
        except _NOT_JSON:
            raise AdapterNotAllowed("adapter_unsupported", "The config does not describe a LoRA adapter.") from None

    def check_tensors(self, tensors: Mapping[str, Tensor], base: BaseShapes | None, rank: int | None = None) -> int:
        """Check names, types and shapes of an adapter's weights; return the rank.

        `base` is None where the base model's shapes are not known, and `rank` where no config said it.

        Raises:
            AdapterNotAllowed: they are not pairs of one rank for layers of the base model that may be changed.
        """
        sides: dict[str, set[str]] = {}
        for name, tensor in tensors.items():
            match = _WEIGHT.fullmatch(name)
            if match is None or match["layer"] not in self.target_modules:
                raise self._module_not_allowed()
            if tensor.dtype not in _BYTES_OF:
                raise AdapterNotAllowed("dtype_not_allowed", f"Weights must be one of {', '.join(_BYTES_OF)}.")
            if len(tensor.shape) != 2 or min(tensor.shape) < 1:
                raise AdapterNotAllowed("shape_mismatch", "Every weight must have two dimensions.")
            inner = tensor.shape[0 if match["side"] == "A" else 1]
            rank = inner if rank is None else rank
            if rank > self.max_rank:
                raise self._rank_not_allowed(rank)
            _check_shape(tensor.shape, match["side"], rank, _shape_of(match["module"], base))
            sides.setdefault(match["module"], set()).add(match["side"])
        if rank is None or not sides or any(found != {"A", "B"} for found in sides.values()):
            raise AdapterNotAllowed("adapter_damaged", "The adapter lacks weights.")
        return rank

    def _rank_not_allowed(self, rank: object) -> AdapterNotAllowed:
        return AdapterNotAllowed("rank_not_allowed", f"The rank must be 1 to {self.max_rank}, not {str(rank)[:20]}.")

    def _module_not_allowed(self) -> AdapterNotAllowed:
        allowed = ", ".join(self.target_modules)
        return AdapterNotAllowed("module_not_allowed", f"Only these layers may be changed: {allowed}.")


def _shape_of(module: str, base: BaseShapes | None) -> tuple[int, ...] | None:
    """Return the shape of a layer's weight, None where it is not known; a layer that is not there is refused."""
    if base is None:
        return None
    for packed in _PACKED:
        if f"{module}.{packed}" in base:
            return None
    shape = base.get(f"{module}.weight", ())
    if shape is not None and len(shape) != 2:
        raise AdapterNotAllowed("shape_mismatch", "The adapter has weights of a layer that the base model lacks.")
    return shape


def _check_shape(shape: tuple[int, ...], side: str, rank: int, layer: tuple[int, ...] | None) -> None:
    outer, inner = layer or (shape[0], shape[1])
    expected = (rank, inner) if side == "A" else (outer, rank)
    if shape != expected:
        message = f"A weight has the shape {list(shape)}; the base model and the rank need {list(expected)}."
        raise AdapterNotAllowed("shape_mismatch", message)


class WeightsCheck:
    """Checks a safetensors file of weights as its bytes come, and rewrites its header: no text of a tenant's is kept.

    Every value is looked at. Every method raises `AdapterNotAllowed`.
    """

    def __init__(self, rules: AdapterRules, *, base: BaseShapes | None = None, rank: int | None = None) -> None:
        """Take `base` and `rank` as `AdapterRules.check_tensors` does."""
        self._rules = rules
        self._base = base
        self._rank = rank
        self._bytes = bytearray()
        self._left: deque[tuple[str, Tensor, int]] | None = None  # None while the header is read
        self._moves = False

    def feed(self, chunk: bytes) -> bytes:
        """Take the next bytes of the file; return the next of the rewritten one."""
        self._bytes += chunk
        written = b""
        if self._left is None:
            size = header_size(bytes(self._bytes[:8]))
            if size is None or len(self._bytes) < 8 + size:
                return b""
            written = self._begin(bytes(self._bytes[8 : 8 + size]))
            del self._bytes[: 8 + size]
        return written + self._values()

    def finish(self) -> int:
        """Return the rank: the file is over."""
        if self._left is None or self._left or self._bytes:
            raise _damaged()
        if not self._moves:
            raise AdapterNotAllowed("all_zero", "The adapter changes nothing: all its weights are zero.")
        assert self._rank is not None, "a header was read"
        return self._rank

    def _begin(self, header: bytes) -> bytes:
        tensors = read_header(header)
        self._rank = self._rules.check_tensors(tensors, self._base, self._rank)
        self._left = deque((name, tensor, tensor.end - tensor.start) for name, tensor in tensors.items())
        return _header_of(tensors)

    def _values(self) -> bytes:
        taken = bytearray()
        while self._left and self._bytes:
            name, tensor, left = self._left.popleft()
            size = _BYTES_OF[tensor.dtype]
            values = bytes(self._bytes[: min(left, len(self._bytes) // size * size)])
            if not values:
                self._left.appendleft((name, tensor, left))
                break
            del self._bytes[: len(values)]
            self._look_at(name, tensor.dtype, values)
            if len(values) < left:
                self._left.appendleft((name, tensor, left - len(values)))
            taken += values
        if self._bytes and not self._left:
            raise _damaged()
        return bytes(taken)

    def _look_at(self, name: str, dtype: str, values: bytes) -> None:
        if not _all_finite(dtype, values):
            raise AdapterNotAllowed("not_finite", "The adapter holds values that are not numbers.")
        self._moves = self._moves or (name.endswith(".lora_B.weight") and not _all_zero(dtype, values))


def header_size(start: bytes) -> int | None:
    """Read how long the header of a safetensors file is from its first 8 bytes; None where there are fewer.

    An adapter's is never over `MAX_HEADER_BYTES`: such a file raises `AdapterNotAllowed`.
    """
    if len(start) < 8:
        return None
    size = int.from_bytes(start[:8], "little")
    if not 2 <= size <= MAX_HEADER_BYTES:
        raise _damaged()
    return size


def read_header(header: bytes) -> dict[str, Tensor]:
    """Read the header of an adapter's weights, in the order of their bytes, which must lie one behind the other.

    Raises:
        AdapterNotAllowed: it is not that of a whole safetensors file.
    """
    try:
        found = _entries(header)
    except _NOT_JSON:
        raise _damaged() from None
    tensors = dict(sorted(found.items(), key=lambda item: item[1].data_offsets))
    end = 0
    for tensor in tensors.values():
        size = _BYTES_OF.get(tensor.dtype)
        fits = size is None or tensor.end - tensor.start == math.prod(tensor.shape) * size
        if tensor.start != end or tensor.end < end or not fits:
            raise _damaged()
        end = tensor.end
    if end > MAX_ADAPTER_BYTES:
        raise AdapterNotAllowed("adapter_too_large", f"An adapter may have {MAX_ADAPTER_BYTES >> 20} MiB at most.")
    return tensors


def shapes_of(weights: BinaryIO) -> dict[str, tuple[int, ...] | None]:
    """Read the shapes from the beginning of a base model's safetensors file; None for those that are packed.

    A file that is none raises ValueError.
    """
    found, _ = _base_header(weights)
    return {name: tensor.shape if tensor.dtype[:1] in "FB" else None for name, tensor in found.items()}


def stated_length(weights: BinaryIO) -> int:
    """Return how many bytes a base model's safetensors file has by its own header. One that is none raises ValueError.

    Its values are not read.
    """
    found, start = _base_header(weights)
    return start + max((tensor.end for tensor in found.values()), default=0)


def _base_header(weights: BinaryIO) -> tuple[dict[str, Tensor], int]:
    """Return the entries, and where the values begin."""
    length = weights.read(8)
    size = int.from_bytes(length, "little")
    if len(length) < 8 or size > _MAX_BASE_HEADER_BYTES:
        raise ValueError("not a safetensors file: its header is too short or too large")
    try:
        return _entries(weights.read(size)), 8 + size
    except _NOT_JSON as error:
        raise ValueError(f"not the header of a safetensors file: {error}") from error


def _entries(header: bytes) -> dict[str, Tensor]:
    entries = msgspec.json.decode(header, type=dict[str, msgspec.Raw])
    entries.pop("__metadata__", None)
    return {name: msgspec.json.decode(entry, type=Tensor) for name, entry in entries.items()}


def _header_of(tensors: Mapping[str, Tensor]) -> bytes:
    """Write a header of nothing but these tensors, as the format wants it: its length first, padded to 8 bytes."""
    header = msgspec.json.encode({"__metadata__": {"format": "pt"}, **tensors})
    header += b" " * (-len(header) % 8)
    return len(header).to_bytes(8, "little") + header


def _all_finite(dtype: str, values: bytes) -> bool:
    # Of an infinity and a NaN every bit of the exponent is set. It begins in the last byte, behind the sign.
    size = _BYTES_OF[dtype]
    high = values[size - 1 :: size]
    if dtype == "F16":
        return not high.translate(None, _FINITE_F16)
    if b"\x7f" not in high and b"\xff" not in high:
        return True
    low = values[size - 2 :: size]
    return not any(one & 0x7F == 0x7F and other & 0x80 for one, other in zip(high, low, strict=True))


def _all_zero(dtype: str, values: bytes) -> bool:
    size = _BYTES_OF[dtype]
    if values[size - 1 :: size].translate(None, b"\x00\x80"):  # zero may have a sign
        return False
    return not any(values[byte::size].translate(None, b"\x00") for byte in range(size - 1))


def _damaged() -> AdapterNotAllowed:
    return AdapterNotAllowed("adapter_damaged", "The weights are not a whole safetensors file.")
