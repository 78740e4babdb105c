"""Safe pickles: arrays and containers are restored exactly, and code in a file is never run."""

import collections
import io
import os
import pickle
import struct

import numpy as np
import pytest

from ccsa.checkpoint import safe_pickle

ARRAYS = [
    np.arange(6, dtype=np.float32).reshape(2, 3),
    np.asfortranarray(np.arange(6.0).reshape(2, 3)),
    np.arange(12, dtype=np.int64)[::2],
    np.arange(3, dtype=">f4"),
    np.array([True, False]),
    np.array(4, np.uint8),
    np.zeros((0, 3), np.float16),
    np.array([1 + 2j]),
]


def load(data):
    return safe_pickle.load(io.BytesIO(data))


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_arrays_and_containers_come_back(protocol):
    content = {
        "model": collections.OrderedDict(
            a=ARRAYS, b=(1, 2.5, None, True, "text", b"\x00\xff", b"")
        ),
        "sets": [{1, 2}, frozenset({3})],
        "scalars": [np.float32(1.5), np.int64(7)],
    }
    found = load(pickle.dumps(content, protocol))
    for got, wanted in zip(found["model"].pop("a"), ARRAYS, strict=True):
        assert isinstance(got, np.ndarray) and got.dtype == wanted.dtype.newbyteorder("=")
        np.testing.assert_array_equal(got, wanted)
    content["model"].pop("a")
    assert found == content and isinstance(found["model"], collections.OrderedDict)


def test_a_pickle_of_python_2_comes_back():
    """Use the form of the MSRA weights: protocol 2, raw bytes as a str, former module names."""
    data = (
        b"\x80\x02}U\x07conv1_wcnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85"
        b"U\x01b\x87R(K\x01K\x02\x85cnumpy\ndtype\nU\x02f4K\x00K\x01\x87R(K\x03U\x01<NNN"
        b"J\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89U\x08" + struct.pack("<ff", 1, -200)
    )
    found = load(data + b"tbsU\x04setsc__builtin__\nset\n]K\x05a\x85Rs.")
    assert found["conv1_w"].tolist() == [1, -200] and found["sets"] == {5}


class Runs:
    """Calls a function when it is unpickled."""

    def __init__(self, function, *args):
        self.call = function, args

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("protocol", [0, 2, 4])
@pytest.mark.parametrize(
    ("function", "args", "name"),
    [
        (os.system, ("touch ran",), f"{os.name}.system"),
        (eval, ("open('ran', 'w')",), "builtins.eval"),
        (getattr, ("", "upper"), "builtins.getattr"),
        (np.load, ("ran",), "numpy.load"),
        (np.dtype, ("O",), "numpy.dtype('O')"),
        (np.dtype, ("V8",), "numpy.dtype('V8')"),
        (collections.Counter, (), "collections.Counter"),
        (io.BytesIO, (), "_io.BytesIO"),
    ],
)
def test_what_a_pickle_may_not_name_is_said_and_not_run(
    function, args, name, protocol, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    data = pickle.dumps({"model": Runs(function, *args)}, protocol)
    with pytest.raises(safe_pickle.ForbiddenGlobal) as error:
        load(data)
    assert error.value.name == name
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("protocol", [2, 5])
def test_an_array_of_objects_is_refused(protocol):
    with pytest.raises(safe_pickle.ForbiddenGlobal, match="dtype"):
        load(pickle.dumps(np.array([{}, None], dtype=object), protocol))


def test_raw_bytes_are_never_taken_for_objects():
    """``numpy.ndarray`` would build objects from any buffer, and so would a forged dtype."""
    address = b"\x00" * 8
    with pytest.raises(TypeError):
        load(pickle.dumps(Runs(np.ndarray, (1,), np.dtype("f8"), address)))
    made = np.dtype("f8").__reduce__()
    state = (3, "|", None, ("a",), {"a": (np.dtype("f4"), 0)}, 8, 8, 0)

    class Forged:
        def __reduce__(self):
            return (*made[:2], state)

    array = np.zeros(1).__reduce__()

    class Array:
        def __reduce__(self):
            return (*array[:2], (1, (1,), Forged(), False, address))

    found = load(pickle.dumps(Array(), 2))
    assert found.dtype == np.float64 and found.tolist() == [0]


@pytest.mark.parametrize("name", sorted(set(safe_pickle.REPLACEMENTS) - {"numpy.ndarray"}))
@pytest.mark.parametrize("state", [b"}S'_call'\nI1\ns", b"N}S'_call'\nI1\ns\x86", b"I1\n"])
def test_a_pickle_leaves_no_trace_on_what_it_names(name, state):
    before = repr(vars(safe_pickle.REPLACEMENTS[name]))
    module, _, leaf = name.rpartition(".")
    with pytest.raises((pickle.UnpicklingError, TypeError, AttributeError)):
        load(b"\x80\x02c" + f"{module}\n{leaf}\n".encode() + state + b"b.")
    assert repr(vars(safe_pickle.REPLACEMENTS[name])) == before


def test_a_damaged_pickle_raises():
    data = pickle.dumps({"a": np.arange(100.0)})
    for part in (b"", data[: len(data) // 2], data[:-1], data[::-1]):
        with pytest.raises((pickle.UnpicklingError, EOFError, ValueError)):
            load(part)
