"""Weights of adapters: what is let through comes out with a header of our own, and everything else is refused."""

import json
import pickle
import struct
import tracemalloc
import zipfile
from io import BytesIO
from typing import Any

import pytest

from support.finetune.adapter_files import (
    DIMENSION,
    Q_PROJ,
    adapter_weights,
    base_weights,
    float_bytes,
    framed,
    lora_settings,
    lora_tensors,
    read_shapes,
    safetensors,
)
from tokenyard.core.adapters import (
    MAX_HEADER_BYTES,
    AdapterNotAllowed,
    AdapterRules,
    WeightsCheck,
    read_header,
)

RULES = AdapterRules(max_rank=8)
A, B = Q_PROJ.format(0, "A"), Q_PROJ.format(0, "B")
BASE = read_shapes(base_weights())


def checked(data: bytes, *, piece: int = 1 << 20, rank: int | None = None) -> bytes:
    check = WeightsCheck(RULES, base=BASE, rank=rank)
    written = b"".join(check.feed(data[at : at + piece]) for at in range(0, len(data), piece))
    check.finish()
    return written


def refusal(data: bytes, **more: Any) -> AdapterNotAllowed:
    with pytest.raises(AdapterNotAllowed) as refused:
        checked(data, **more)
    return refused.value


def parts(data: bytes) -> tuple[dict[str, Any], bytes]:
    size = struct.unpack("<Q", data[:8])[0]
    return json.loads(data[8 : 8 + size]), data[8 + size :]


def test_values_stay_and_nothing_else_of_the_tenant_does() -> None:
    sent = safetensors(lora_tensors(), metadata={"note": "<script>"})
    header, values = parts(checked(sent))
    assert header.pop("__metadata__") == {"format": "pt"}
    assert (header, values) == ({k: v for k, v in parts(sent)[0].items() if k != "__metadata__"}, parts(sent)[1])
    assert checked(checked(sent)) == checked(sent)


@pytest.mark.parametrize("piece", [1, 3, 7, 64])
def test_it_does_not_matter_how_the_bytes_come(piece: int) -> None:
    assert checked(adapter_weights(), piece=piece) == checked(adapter_weights())


def test_what_no_safetensors_file_is() -> None:
    archive = BytesIO()
    with zipfile.ZipFile(archive, "w") as zipped:
        zipped.writestr("../../etc/passwd", "x")
    good = adapter_weights()
    deep = framed(b'{"a":' * 100_000 + b"1" + b"}" * 100_000)
    for data in (
        *(b"", b"PK", pickle.dumps({"weight": [1]}), archive.getvalue(), b"\xff" * 64, framed(b"[]"), framed(b"{}")),
        *(good[:4], good[:8], good[:100], good[:-1], good + b"more", deep, framed(b'{"a": \xff}')),
    ):
        assert refusal(data).code == "adapter_damaged", data[:20]


def test_a_header_that_says_it_is_endless_costs_nothing() -> None:
    check = WeightsCheck(RULES)
    tracemalloc.start()
    with pytest.raises(AdapterNotAllowed):
        check.feed(struct.pack("<Q", MAX_HEADER_BYTES + 1) + b"{" * 1000)
    assert tracemalloc.get_traced_memory()[1] < 1 << 20
    tracemalloc.stop()


@pytest.mark.parametrize(
    "entry",
    [
        {"dtype": "F32", "shape": [1 << 40, 1 << 40], "data_offsets": [0, 256]},
        {"dtype": "F32", "shape": [4, 16], "data_offsets": [0, 1 << 62]},
        {"dtype": "F32", "shape": [4, 16], "data_offsets": [8, 264]},
        {"dtype": "F32", "shape": [4, 16], "data_offsets": [-256, 0]},
        {"dtype": "F32", "shape": [4, 16], "data_offsets": [256, 0]},
        {"dtype": "F32", "shape": [4, 16], "data_offsets": [0, 512]},
        {"dtype": "F32", "shape": "many", "data_offsets": [0, 256]},
        {"dtype": "F32", "shape": [4, 16], "data_offsets": [0, 256], "code": "import os"},
        {"dtype": "F32", "shape": [4, 16]},
    ],
)
def test_entries_that_lie_about_their_bytes(entry: dict[str, Any]) -> None:
    assert refusal(safetensors(lora_tensors(layers=1), header={A: entry})).code == "adapter_damaged"


def test_two_tensors_may_not_share_their_bytes() -> None:
    shared = {name: {"dtype": "F32", "shape": [4, 16], "data_offsets": [0, 256]} for name in (A, Q_PROJ.format(1, "A"))}
    assert refusal(safetensors(lora_tensors(), header=shared)).code == "adapter_damaged"


@pytest.mark.parametrize(
    ("tensors", "code"),
    [
        ({A: ((5, DIMENSION), float_bytes(5 * DIMENSION))}, "shape_mismatch"),
        ({A: ((4, DIMENSION + 1), float_bytes(4 * DIMENSION + 4))}, "shape_mismatch"),
        ({A: ((4 * DIMENSION,), float_bytes(4 * DIMENSION))}, "shape_mismatch"),
        ({A: ((0, DIMENSION), b"")}, "shape_mismatch"),
        ({Q_PROJ.format(7, "A"): ((4, DIMENSION), float_bytes(4 * DIMENSION))}, "shape_mismatch"),
        ({A.replace("q_proj", "lm_head"): ((4, DIMENSION), float_bytes(4 * DIMENSION))}, "module_not_allowed"),
        ({"../../weights": ((1, 1), float_bytes(1))}, "module_not_allowed"),
        ({A.replace("lora_A", "lora_magnitude_vector"): ((1, 1), float_bytes(1))}, "module_not_allowed"),
        ({A: ((9, DIMENSION), float_bytes(9 * DIMENSION))}, "rank_not_allowed"),
    ],
)
def test_tensors_that_fit_no_layer(tensors: dict[str, Any], code: str) -> None:
    assert refusal(safetensors(lora_tensors(layers=1) | tensors)).code == code


def test_half_a_pair_and_another_rank_than_the_config_s() -> None:
    tensors = lora_tensors()
    del tensors[B]
    assert refusal(safetensors(tensors)).code == "adapter_damaged"
    assert refusal(adapter_weights(rank=4), rank=8).code == "shape_mismatch"
    assert refusal(framed(b"{}"), rank=8).code == "adapter_damaged"


SPECIALS = {
    "F32": (4, [b"\x00\x00\xc0\x7f", b"\x00\x00\x80\xff", b"\x01\x00\x80\x7f"], b"\x00\x00\x7f\x7f"),
    "BF16": (2, [b"\xc0\x7f", b"\x80\xff", b"\x81\x7f"], b"\x7f\x7f"),
    "F16": (2, [b"\x00\x7e", b"\x00\xfc", b"\x01\x7c"], b"\xff\x7b"),
}


@pytest.mark.parametrize("dtype", SPECIALS)
def test_values_that_are_not_numbers(dtype: str) -> None:
    size, not_numbers, largest = SPECIALS[dtype]
    zeros, minus = b"\x00" * size, b"\x00" * (size - 1) + b"\x80"
    count = 4 * DIMENSION

    def with_value(value: bytes, rest: bytes = zeros) -> bytes:
        return safetensors(
            {A: ((4, DIMENSION), rest * count), B: ((DIMENSION, 4), rest * 40 + value + rest * 23)}, dtype=dtype
        )

    for value in not_numbers:
        for piece in (1 << 20, 5):
            assert refusal(with_value(value), piece=piece).code == "not_finite"
    assert checked(with_value(largest)), "the largest number is one"
    assert checked(with_value(b"\x01" + b"\x00" * (size - 1))), "and so is the smallest"
    assert refusal(with_value(zeros)).code == refusal(with_value(minus, minus)).code == "all_zero"


@pytest.mark.parametrize("dtype", ["F64", "I8", "BOOL", "F8_E4M3", "U8"])
def test_types_that_no_adapter_has(dtype: str) -> None:
    size = {"F64": 8}.get(dtype, 1)
    tensors = {name: (shape, b"\x01" * size * 64) for name, (shape, _) in lora_tensors(layers=1).items()}
    assert refusal(safetensors(tensors, dtype=dtype)).code == "dtype_not_allowed"


def test_a_base_that_is_packed_says_only_which_layers_it_has() -> None:
    packed = {"model.layers.0.self_attn.q_proj.qweight": None, "model.layers.1.self_attn.q_proj.weight": None}
    tensors = read_header(parts_of_header(adapter_weights(dimension=99)))
    assert RULES.check_tensors(tensors, packed) == 4
    with pytest.raises(AdapterNotAllowed):
        RULES.check_tensors(tensors, {"model.layers.0.self_attn.q_proj.qweight": None})


def parts_of_header(data: bytes) -> bytes:
    return data[8 : 8 + struct.unpack("<Q", data[:8])[0]]


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"r": True}, "rank_not_allowed"),
        ({"lora_alpha": 0}, "alpha_not_allowed"),
        ({"lora_alpha": float("nan")}, "alpha_not_allowed"),
        ({"lora_alpha": 16.5}, "alpha_not_allowed"),
        ({"lora_alpha": "16"}, "alpha_not_allowed"),
        ({"init_lora_weights": "pissa"}, "adapter_unsupported"),
        ({"task_type": "SEQ_CLS"}, "adapter_unsupported"),
        ({"layer_replication": [[0, 2]]}, "adapter_unsupported"),
        ({"auto_mapping": {"base_model_class": "os.system"}}, "adapter_unsupported"),
    ],
)
def test_configs_that_mean_something_else(change: dict[str, object], code: str) -> None:
    with pytest.raises(AdapterNotAllowed) as refused:
        RULES.check(lora_settings() | change)
    assert refused.value.code == code


def test_a_config_that_is_no_object() -> None:
    for data in (b"", b"[]", b"{", b'"LORA"', b"[" * 100_000):
        with pytest.raises(AdapterNotAllowed):
            RULES.read(data)
    assert RULES.read(json.dumps(lora_settings()).encode()) == 4
