import struct
from pathlib import Path

import msgpack
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from octo_folder import Bfloat16, Chunked, extension, nest, pack

from hildaft.models.flax_msgpack import read_flax_arrays
from hildaft.types import HilDaftError


def write(folder: Path, data: bytes) -> Path:
    path = folder / "checkpoint"
    path.write_bytes(data)
    return path


def test_reads_the_bytes_as_the_format_is_documented(tmp_path):
    # {"w": ext 1 of [[2], "float32", 8 bytes]}, byte by byte.
    payload = bytes([0x93, 0x91, 2, 0xA7]) + b"float32" + bytes([0xC4, 8])
    payload += struct.pack("<2f", 1.5, -2.0)
    data = bytes([0x81, 0xA1]) + b"w" + bytes([0xC7, len(payload), 1]) + payload
    np.testing.assert_array_equal(read_flax_arrays(write(tmp_path, data))["w"], [1.5, -2.0])


DTYPES = [np.float16, np.float32, np.float64, np.int8, np.int32, np.uint8, np.int64, np.bool_]


@settings(max_examples=60, deadline=None)
@given(
    st.dictionaries(
        st.text("abc_/", min_size=1).filter(lambda n: "//" not in n and n.strip("/") == n),
        st.sampled_from(DTYPES).flatmap(
            lambda dtype: hnp.arrays(dtype, hnp.array_shapes(min_dims=0, max_side=4, min_side=0))
        ),
        max_size=5,
    )
)
def test_round_trip_of_any_tree(tmp_path_factory, arrays):
    names = list(arrays)
    arrays = {f"{i}/{name}/leaf": arrays[name] for i, name in enumerate(names)}
    path = write(tmp_path_factory.mktemp("tree"), pack(nest(arrays)))
    found = read_flax_arrays(path)
    assert found.keys() == arrays.keys()
    for name, array in arrays.items():
        assert found[name].dtype == array.dtype
        np.testing.assert_array_equal(found[name], array)


def test_bfloat16_chunked_arrays_and_scalars(tmp_path):
    rng = np.random.default_rng(0)
    half, big = rng.standard_normal((3, 4)), rng.standard_normal((5, 7)).astype(np.float32)
    tree = {"half": Bfloat16(half), "deep": {"big": Chunked(big, 8)}, "scalar": np.float32(2.5)}
    found = read_flax_arrays(write(tmp_path, pack({**tree, "nothing": None, "count": 3})))
    np.testing.assert_array_equal(found["half"], Bfloat16(half).read())
    assert found["half"].dtype == np.float32
    np.testing.assert_allclose(found["half"], half, rtol=1e-2)
    np.testing.assert_array_equal(found["deep/big"], big)
    assert found["scalar"].shape == ()
    assert (float(found["scalar"]), int(found["count"])) == (2.5, 3)
    assert "nothing" not in found


def test_any_truncation_is_refused(tmp_path):
    whole = pack({"a": np.arange(4, dtype=np.float32), "b": {"c": np.ones((2, 2))}})
    for length in range(len(whole)):
        with pytest.raises(HilDaftError, match="fetch the checkpoint again"):
            read_flax_arrays(write(tmp_path, whole[:length]))
    assert len(read_flax_arrays(write(tmp_path, whole))) == 2


HOSTILE = {
    "pickle": b"\x80\x04\x95\x10\x00\x00\x00\x00\x00\x00\x00.",
    "nesting": b"\x81\xa1a" * 100_000 + b"\xc0",
    "huge array header": b"\x81\xa1a\xdd\xff\xff\xff\xff",
    "huge map header": b"\xdf\xff\xff\xff\xff",
    "huge shape": pack({"a": None})[:-1] + extension(1, (1 << 40, 1 << 40), "float32", b"1234"),
    "negative shape": b"\x81\xa1a\xc7\x0c\x01" + msgpack.packb(((-1,), "float32", b"")),
    "object dtype": pack({"a": None})[:-1] + extension(1, (1,), "object", b"\0" * 8),
    "structured dtype": pack({"a": None})[:-1] + extension(1, (1,), "f4,f4", b"\0" * 8),
    "foreign extension": pack({"a": None})[:-1] + extension(77, (1,), "float32", b"\0" * 4),
    "complex": b"\x81\xa1a\xc7\x13\x02" + msgpack.packb((0.0, 1.0)),
    "short data": pack({"a": None})[:-1] + extension(1, (3,), "float32", b"\0" * 4),
    "no map": pack(["a"]),
    "number key": b"\x81\x01\xc0",
    "slash in a key": pack({"a/b": np.ones(1)}),
    "text leaf": pack({"a": "__import__('os')"}),
    "bytes leaf": pack({"a": b"cos\nsystem"}),
    "list leaf": pack({"a": [1]}),
    "pieces that do not fill": pack(
        {"a": {**Chunked(np.ones(8), 4).tree(), "shape": {"0": 9}}},
    ),
    "pieces out of order": pack(
        {"a": {**Chunked(np.ones(8), 4).tree(), "chunks": {"0": np.ones(4), "2": np.ones(4)}}},
    ),
    "no pieces": pack({"a": {**Chunked(np.ones(8), 4).tree(), "chunks": {}}}),
    "trailing bytes": pack({"a": np.ones(1)}) + b"\x00",
    "empty": b"",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_files_are_refused(tmp_path, name):
    with pytest.raises(HilDaftError, match="fetch the checkpoint again"):
        read_flax_arrays(write(tmp_path, HOSTILE[name]))


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=64), st.integers(0, 400))
def test_damage_is_refused_or_leaves_arrays(tmp_path_factory, noise, at):
    whole = bytearray(pack({"a": np.arange(40, dtype=np.float32), "b": {"c": np.ones((2, 2))}}))
    whole[at : at + len(noise)] = noise
    try:
        found = read_flax_arrays(write(tmp_path_factory.mktemp("noise"), bytes(whole)))
    except HilDaftError:
        return
    assert all(isinstance(array, np.ndarray) for array in found.values())


def test_entries_that_orbax_keeps_elsewhere_are_named(tmp_path):
    with pytest.raises(HilDaftError, match="a/b was written to a file of its own"):
        read_flax_arrays(write(tmp_path, pack({"a": {"b": "PLACEHOLDER://a.b"}})))


def test_missing_file_is_named(tmp_path):
    with pytest.raises(HilDaftError, match="No such file"):
        read_flax_arrays(tmp_path / "checkpoint")
