"""Read arrays out of a pickle without running anything that it names.

Body models of the SMPL family come as pickles of Python 2, and unpickling is running a program
that the file brings.  Here no class or function of numpy, scipy or chumpy is called by that
program: each global that such files need is replaced by a record of ours that only remembers what
it was given, and every other global ends the reading with its name.  Arrays are made from the
records afterwards, with shapes and types checked.

Layouts: numpy's `ndarray.__reduce__` and `dtype.__reduce__` (numpy/_core/src/multiarray), the
attributes of scipy's compressed matrices, of `chumpy.ch.Ch` (`x`) and of
`chumpy.reordering.Select` (`a`, `idxs`, `preferred_shape`).
"""

from __future__ import annotations

import io
import pickle
import pickletools
from collections.abc import Callable, Mapping
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from models_sync.errors import PickleRefused

Array = npt.NDArray[Any]

MAX_DENSE_BYTES = 1 << 30
"""A sparse matrix larger than this when written out is no joint regressor (SMPL-X's: 5 MB)."""

_NUMERIC_KINDS = "biuf"
_MAX_MEMO = 1_000_000
"""Objects that a pickle refers to twice; SMPL-X's has some hundreds."""
_MAX_NESTING = 16
"""A view of a view of a view…: genuine files have two levels."""


def load(data: bytes) -> Any:
    """Read a pickle into dicts, lists, numbers, text and records; see `as_array`.

    Raises:
        PickleRefused: it names a global that is not allowed (nothing was run), or it is damaged.
    """
    try:
        _refuse_huge_memo(data)
        # latin1: Python 2 kept an array's bytes in `str`, one character a byte.
        return _Reader(io.BytesIO(data), encoding="latin1").load()
    except PickleRefused:
        raise
    except Exception as error:  # a damaged pickle raises nearly anything
        raise PickleRefused(f"the pickle is damaged: {error}") from error


def as_array(value: Any) -> Array | None:
    """The numbers that a value of `load` stands for, sparse ones written out; None: no numbers.

    Text, dicts, lists of joint names and arrays of objects are no numbers.

    Raises:
        PickleRefused: it claims to be an array and its parts do not agree.
    """
    try:
        array = _array(value, _MAX_NESTING)
    except PickleRefused:
        raise
    except Exception as error:  # parts of any type can stand where a shape or a type should
        raise PickleRefused(f"an array in the file is damaged: {error}") from error
    return None if array is None or array.dtype.kind not in _NUMERIC_KINDS else array


def _refuse_huge_memo(data: bytes) -> None:
    """Look at the instructions before following any: one of them can ask for 32 GB of memory."""
    for code, argument, _ in pickletools.genops(data):
        is_put = code.name in {"PUT", "BINPUT", "LONG_BINPUT"}
        if is_put and isinstance(argument, int) and argument > _MAX_MEMO:
            raise PickleRefused(f"the file wants to remember {argument:,} objects")


class _Reader(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        try:
            return ALLOWED[f"{module}.{name}"]
        except KeyError:
            raise PickleRefused(f"the file names {module}.{name}, which is no array") from None

    def persistent_load(self, pid: Any) -> Any:
        raise PickleRefused(f"the file refers to something outside itself ({str(pid)[:40]!r})")


def _array(value: Any, depth: int) -> Array | None:
    if depth == 0:
        raise PickleRefused("an array in the file is nested too deeply")
    if isinstance(value, (bool, int, float)):
        return np.asarray(value)
    return value.array(depth - 1) if isinstance(value, _Record) else None


def _numbers(value: Any, depth: int) -> Array:
    array = _array(value, depth)
    if array is None or array.dtype.kind not in _NUMERIC_KINDS:
        raise PickleRefused("part of an array in the file is no numbers")
    return array


# ---------------------------------------------------------------- what stands for a global
class _Record:
    """Remembers its arguments and its state, and does nothing."""

    args: tuple[Any, ...]
    state: Any

    def __new__(cls, *args: Any, **named: Any) -> Self:
        # Not __init__: pickle makes an object by __new__ alone.
        record = super().__new__(cls)
        record.args, record.state = args, named
        return record

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def array(self, depth: int) -> Array | None:  # noqa: ARG002 - kinds that hold others need it
        """Return the numbers that this stands for; None: none."""
        return None

    def attribute(self, *names: str) -> Any:
        """Return the first of `names` that the object has."""
        if isinstance(self.state, Mapping):
            for name in names:
                if name in self.state:
                    return self.state[name]
        raise PickleRefused(f"an object in the file has no {' or '.join(names)}")


class _Dtype(_Record):
    """`dtype("f8", False, True)`, then state (3, "<", …): the byte order is in the state."""

    def dtype(self) -> np.dtype[Any]:
        code = _text(self.args[0])
        dtype = np.dtype(code)
        if dtype.kind not in _NUMERIC_KINDS + "OSU":
            raise PickleRefused(f"an array in the file is of type {code!r}")
        big_endian = isinstance(self.state, tuple) and _text(self.state[1]) == ">"
        return dtype.newbyteorder(">") if big_endian else dtype


class _Reconstructed(_Record):
    """`_reconstruct(ndarray, (0,), b"b")`, then state (version, shape, dtype, fortran, data)."""

    def array(self, depth: int) -> Array | None:
        _, shape, dtype, fortran, data = self.state
        kind = dtype.dtype()
        if kind.kind != "O":
            return _filled(data, kind, shape, fortran=bool(fortran))
        # np.array(sparse_matrix) is an array of one object; what it holds may be numbers.
        return _array(data[0], depth) if shape == () and len(data) == 1 else None


class _FromBuffer(_Record):
    """`_frombuffer(data, dtype, shape, order)`: protocol 5."""

    def array(self, depth: int) -> Array:  # noqa: ARG002 - as above
        data, dtype, shape, order = self.args
        return _filled(data, dtype.dtype(), shape, fortran=order == "F")


class _Scalar(_Record):
    """`scalar(dtype, data)`."""

    def array(self, depth: int) -> Array:  # noqa: ARG002 - as above
        dtype, data = self.args
        return _filled(data, dtype.dtype(), (), fortran=False)


class _ByRow(_Record):
    """scipy's compressed matrix; `indices` count columns, `indptr` rows."""

    def array(self, depth: int) -> Array:
        rows, columns = (int(side) for side in self.attribute("_shape", "shape"))
        return self.written_out(rows, columns, depth)

    def written_out(self, outer_count: int, inner_count: int, depth: int) -> Array:
        """Return the dense matrix (outer_count, inner_count)."""
        starts, inner, data = (
            _numbers(self.attribute(name), depth) for name in ("indptr", "indices", "data")
        )
        counts = np.diff(starts)
        good = (
            starts.shape == (outer_count + 1,)
            and (starts[0], starts[-1]) == (0, len(inner))
            and len(inner) == len(data)
            and (counts >= 0).all()
            and (inner >= 0).all()
        )
        if not good or outer_count * inner_count * data.dtype.itemsize > MAX_DENSE_BYTES:
            raise PickleRefused(f"a sparse matrix in the file ({outer_count}×{inner_count}) is bad")
        dense = np.zeros((outer_count, inner_count), dtype=data.dtype)
        np.add.at(dense, (np.repeat(np.arange(outer_count), counts), inner), data)
        return dense


class _ByColumn(_ByRow):
    """The same with rows and columns exchanged."""

    def array(self, depth: int) -> Array:
        rows, columns = (int(side) for side in self.attribute("_shape", "shape"))
        return np.ascontiguousarray(self.written_out(columns, rows, depth).T)


class _Chumpy(_Record):
    """`chumpy.ch.Ch`: a leaf that holds `x`."""

    def array(self, depth: int) -> Array | None:
        return _array(self.attribute("x"), depth)


class _Select(_Record):
    """`chumpy.reordering.Select`: the elements `idxs` of `a`."""

    def array(self, depth: int) -> Array:
        picks = _numbers(self.attribute("idxs"), depth).ravel().astype(np.int64)
        picked: Array = _numbers(self.attribute("a"), depth).ravel()[picks]
        if "preferred_shape" not in self.state:
            return picked
        shape = self.state["preferred_shape"]
        return picked.reshape([int(_numbers(side, depth)) for side in shape])


class _Encoded(_Record):
    """`_codecs.encode(text, "latin1")`: how Python 3 writes bytes at protocol 2."""


class _Bystander(_Record):
    """Named by genuine files, holds no numbers: `ndarray` as an argument, chumpy's sets."""


class _Reconstructor:
    """`copy_reg._reconstructor(cls, object, None)`: how protocols 0 and 1 make an object."""

    __slots__ = ()  # no function, whose attributes a file could set

    def __call__(self, kind: Any, *_: Any) -> _Record:
        if not (isinstance(kind, type) and issubclass(kind, _Record)):
            raise PickleRefused("the file builds an object of no class")
        return kind()


_GLOBALS: tuple[tuple[Callable[..., Any], tuple[str, ...], tuple[str, ...]], ...] = (
    (_Reconstructed, ("numpy.core.multiarray", "numpy._core.multiarray"), ("_reconstruct",)),
    (_Scalar, ("numpy.core.multiarray", "numpy._core.multiarray"), ("scalar",)),
    (_FromBuffer, ("numpy.core.numeric", "numpy._core.numeric"), ("_frombuffer",)),
    (_Dtype, ("numpy",), ("dtype",)),
    (_Bystander, ("numpy",), ("ndarray",)),
    (_ByColumn, ("scipy.sparse.csc", "scipy.sparse._csc"), ("csc_matrix", "csc_array")),
    (_ByRow, ("scipy.sparse.csr", "scipy.sparse._csr"), ("csr_matrix", "csr_array")),
    (_Chumpy, ("chumpy.ch",), ("Ch",)),
    (_Select, ("chumpy.reordering",), ("Select",)),
    (_Bystander, ("__builtin__", "builtins"), ("object", "set")),
    (_Reconstructor(), ("copy_reg", "copyreg"), ("_reconstructor",)),
    (_Encoded, ("_codecs",), ("encode",)),
)
ALLOWED: Mapping[str, Callable[..., Any]] = {
    f"{module}.{name}": record
    for record, modules, names in _GLOBALS
    for module in modules
    for name in names
}
"""Every global that a file may name, and what stands in its place."""


# ---------------------------------------------------------------- bytes to numbers
def _filled(data: Any, dtype: np.dtype[Any], shape: Any, *, fortran: bool) -> Array:
    array = np.frombuffer(_bytes(data), dtype=dtype)
    array = array.reshape([int(side) for side in shape], order="F" if fortran else "C")
    # Our own byte order and memory, whatever machine wrote the file.
    return np.array(array, dtype=dtype.newbyteorder("="), order="C")


def _bytes(data: Any) -> bytes:
    if isinstance(data, _Encoded):
        data, codec = data.args
        if codec not in {"latin1", "latin-1"}:
            raise PickleRefused(f"the file names the codec {codec!r}")
    if isinstance(data, str):
        return data.encode("latin1")
    if isinstance(data, (bytes, bytearray)):
        return bytes(data)
    raise PickleRefused("an array in the file has no data")


def _text(value: Any) -> str:
    return value.decode("latin1") if isinstance(value, bytes) else str(value)
