"""Official body models become numbers alone, and a pickle that wants more is named, not run."""

import collections
import os
import pickle
import struct
import subprocess
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.sparse

from models_sync import pickles
from models_sync.convert import convert_smplx, read_arrays
from models_sync.errors import NotABodyModel, PickleRefused, PlacementBlocked

RNG = np.random.default_rng(7)
VERTICES, JOINTS = 40, 6


def body() -> dict[str, Any]:
    """A model with the entries and types of SMPLX_NEUTRAL.pkl, only smaller."""
    regressor = scipy.sparse.random(JOINTS, VERTICES, density=0.2, format="csc", rng=RNG)
    return {
        "v_template": RNG.normal(size=(VERTICES, 3)),
        "shapedirs": np.asfortranarray(RNG.normal(size=(VERTICES, 3, 20))),
        "posedirs": RNG.normal(size=(VERTICES, 3, 9 * (JOINTS - 1))).astype(np.float32),
        "J_regressor": regressor,
        "weights": RNG.random((VERTICES, JOINTS)),
        "kintree_table": np.arange(2 * JOINTS, dtype=np.uint32).reshape(2, JOINTS),
        "f": RNG.integers(0, VERTICES, size=(70, 3)).astype(">u4"),
        "bs_style": "lbs",
        "joint2num": {"Pelvis": 0},
        "allow": np.array(["a", "b"]),
        "parts": np.array({"head": 1}, dtype=object),
        "scale": np.float64(1.5),
    }


def dense(value: Any) -> Any:
    return value.toarray() if scipy.sparse.issparse(value) else np.asarray(value)


NUMBERS = {
    "v_template",
    "shapedirs",
    "posedirs",
    "J_regressor",
    "weights",
    "kintree_table",
    "f",
    "scale",
}


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_pickle_of_any_protocol_becomes_numbers_that_load_without_pickle(
    tmp_path: Path, protocol: int
) -> None:
    source, model = tmp_path / "SMPLX_NEUTRAL.pkl", body()
    source.write_bytes(pickle.dumps(model, protocol))
    done = convert_smplx(source)

    assert done.target == tmp_path / "SMPLX_NEUTRAL.npz"
    assert set(done.left_out) == set(model) - NUMBERS
    with np.load(done.target, allow_pickle=False) as archive:
        assert set(archive.files) == NUMBERS
        for name in NUMBERS:
            np.testing.assert_array_equal(archive[name], dense(model[name]), err_msg=name)
            assert archive[name].dtype.isnative
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_the_same_file_gives_the_same_bytes(tmp_path: Path) -> None:
    source = tmp_path / "SMPLX_MALE.pkl"
    source.write_bytes(pickle.dumps(body()))
    first = convert_smplx(source, tmp_path / "a.npz").target.read_bytes()
    assert convert_smplx(source, tmp_path / "b.npz").target.read_bytes() == first


def test_python_2_text_is_an_arrays_bytes(tmp_path: Path) -> None:
    """What Python 2 wrote: every byte of the array a character of a `str`."""
    array = RNG.normal(size=(5, 3))
    raw = array.tobytes()
    written = (
        b"\x80\x02cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R"
        b"(K\x01K\x05K\x03\x86cnumpy\ndtype\nU\x02f8K\x00K\x01\x87R"
        b"(K\x03U\x01<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89"
        b"U" + struct.pack("B", len(raw)) + raw + b"tb."
    )
    np.testing.assert_array_equal(pickles.as_array(pickles.load(written)), array)
    np.testing.assert_array_equal(pickle.loads(written, encoding="latin1"), array)


# ---------------------------------------------------------------- chumpy
@pytest.fixture
def chumpy() -> Iterator[types.SimpleNamespace]:
    """Classes with chumpy's names and attributes; chumpy itself does not import today."""

    class Ch:
        def __init__(self, **state: Any) -> None:
            self.__dict__.update(state, _dirty_vars={"x"}, _itr=None, _depends_on_deps={})

    class Select(Ch):
        pass

    modules = {"chumpy": None, "chumpy.ch": Ch, "chumpy.reordering": Select}
    for name, kind in modules.items():
        module = types.ModuleType(name)
        if kind is not None:
            kind.__module__, kind.__qualname__ = name, kind.__name__
            setattr(module, kind.__name__, kind)
        sys.modules[name] = module
    yield types.SimpleNamespace(Ch=Ch, Select=Select)
    for name in modules:
        del sys.modules[name]


@pytest.mark.parametrize("protocol", [0, 1, 2, 5])
def test_chumpys_arrays_are_read_without_chumpy(chumpy: Any, protocol: int) -> None:
    shapedirs = RNG.normal(size=(4, 3, 20))
    leaf = chumpy.Ch(x=shapedirs)
    first_ten = np.arange(shapedirs.size).reshape(shapedirs.shape)[:, :, :10]
    view = chumpy.Select(a=leaf, idxs=first_ten.ravel(), preferred_shape=(4, 3, 10))
    flat = chumpy.Select(a=leaf, idxs=np.array([2, 0]))
    entries = pickles.load(pickle.dumps({"leaf": leaf, "view": view, "flat": flat}, protocol))

    np.testing.assert_array_equal(pickles.as_array(entries["leaf"]), shapedirs)
    np.testing.assert_array_equal(pickles.as_array(entries["view"]), shapedirs[:, :, :10])
    np.testing.assert_array_equal(pickles.as_array(entries["flat"]), shapedirs[0, 0, [2, 0]])


def test_a_chumpy_expression_that_would_have_to_be_computed_is_named(tmp_path: Path) -> None:
    path = tmp_path / "SMPL.pkl"
    path.write_bytes(b"\x80\x02cchumpy.ch_ops\nadd\n)\x81.")
    with pytest.raises(PickleRefused, match=r"SMPL\.pkl: the file names chumpy\.ch_ops\.add"):
        convert_smplx(path)


# ---------------------------------------------------------------- npz
def test_objects_in_an_npz_are_read_by_the_same_rules(tmp_path: Path) -> None:
    model = body()
    del model["bs_style"]
    source = tmp_path / "SMPLX_FEMALE.npz"
    np.savez(source, **{key: np.asarray(value) for key, value in model.items()})
    with pytest.raises(ValueError, match="allow_pickle"):
        np.load(source)["joint2num"]

    with pytest.raises(PlacementBlocked):
        convert_smplx(source)
    done = convert_smplx(source, tmp_path / "out.npz")
    assert set(done.left_out) == {"joint2num", "allow", "parts"}
    with np.load(done.target) as archive:
        for name in NUMBERS:
            np.testing.assert_array_equal(archive[name], dense(model[name]), err_msg=name)


def test_a_malicious_object_in_an_npz_is_not_run(tmp_path: Path) -> None:
    source = tmp_path / "SMPLX_FEMALE.npz"
    np.savez(source, joint2num=np.array(Evil(tmp_path / "ran"), dtype=object))
    with pytest.raises(PickleRefused, match=r"posix\.system"):
        convert_smplx(source, tmp_path / "out.npz")
    assert not (tmp_path / "ran").exists()


# ---------------------------------------------------------------- malice and damage
class Evil:
    def __init__(self, witness: Path) -> None:
        self.witness = witness

    def __reduce__(self) -> Any:
        return os.system, (f"touch {self.witness}",)


def evil_pickles(witness: Path) -> dict[str, tuple[bytes, str]]:
    touch = f"touch {witness}".encode()
    return {
        "a call": (pickle.dumps({"f": Evil(witness)}), r"posix\.system"),
        "protocol 0": (b"cos\nsystem\n(S'" + touch + b"'\ntR.", r"os\.system"),
        "builtins": (b"c__builtin__\neval\n(S'1'\ntR.", r"__builtin__\.eval"),
        "subprocess": (pickle.dumps(subprocess.Popen, 4), r"subprocess\.Popen"),
        "a path through numpy": (
            b"\x80\x04\x8c\x05numpy\x8c\x0ef2py.os.system\x93.",
            r"numpy\.f2py",
        ),
        "an attribute of what is allowed": (
            b"\x80\x04\x8c\x05numpy\x8c\x11ndarray.__class__\x93.",
            r"numpy\.ndarray\.__class__",
        ),
        "numpy.load": (b"cnumpy\nload\n(S'x'\ntR.", r"numpy\.load"),
        "getattr": (b"cbuiltins\ngetattr\n.", r"builtins\.getattr"),
        "an extension": (b"\x80\x02\x82\x01.", "damaged"),
        "a persistent id": (b"Phttp://example.com/x\n.", "outside itself"),
        "OrderedDict": (pickle.dumps(collections.OrderedDict(a=1)), r"collections\.OrderedDict"),
    }


@pytest.mark.parametrize("name", evil_pickles(Path("x")))
def test_every_other_global_is_named_and_nothing_runs(tmp_path: Path, name: str) -> None:
    witness = tmp_path / "ran"
    content, named = evil_pickles(witness)[name]
    path = tmp_path / "SMPLX_NEUTRAL.pkl"
    path.write_bytes(content)
    with pytest.raises(PickleRefused, match=named):
        convert_smplx(path)
    assert not witness.exists()
    assert not path.with_suffix(".npz").exists()


def test_no_allowed_global_is_a_class_or_function_of_another_package() -> None:
    assert {record.__module__ for record in pickles.ALLOWED.values()} == {"models_sync.pickles"}


def test_a_file_cannot_change_what_stands_for_a_global() -> None:
    """BUILD on the class itself, instead of on an object of it."""
    for name in pickles.ALLOWED:
        module, _, kind = name.rpartition(".")
        with pytest.raises(PickleRefused):
            pickles.load(f"c{module}\n{kind}\n(dS'array'\nS'x'\nsb.".encode())
    assert callable(pickles.ALLOWED["numpy.dtype"]("f8").array)


def test_a_codec_other_than_latin1_is_refused() -> None:
    array = pickle.dumps(np.arange(3.0), 2).replace(b"latin1", b"rot_13")
    with pytest.raises(PickleRefused, match="rot_13"):
        pickles.as_array(pickles.load(array))


@pytest.mark.parametrize("put", [b"r\xff\xff\xff\x7f", b"p999999999\n"])
def test_an_instruction_that_asks_for_all_memory_is_refused(put: bytes) -> None:
    with pytest.raises(PickleRefused, match="wants to remember"):
        pickles.load(b"]" + put + b".")


def damaged_sparse(**changes: Any) -> bytes:
    matrix = scipy.sparse.csc_matrix(np.eye(3))
    matrix.__dict__.update(changes)
    return pickle.dumps(matrix)


@pytest.mark.parametrize(
    "content",
    [
        damaged_sparse(indptr=np.array([0, 1])),
        damaged_sparse(indptr=np.array([0, 3, 1, 3])),
        damaged_sparse(indices=np.array([0, 1, 9])),
        damaged_sparse(indices=np.array([0, 1, -1])),
        damaged_sparse(_shape=(1 << 40, 3)),
        damaged_sparse(_shape=(3, 3, 3)),
        damaged_sparse(data="none"),
        pickle.dumps(np.arange(9.0)).replace(b"K\x09", b"K\x0a"),
        pickle.dumps(np.arange(9.0), 2).replace(b"f8", b"q9"),
        pickle.dumps(np.array(["2026-01-01"], dtype="M8[D]")),
    ],
)
def test_an_array_whose_parts_do_not_agree_is_refused(content: bytes) -> None:
    with pytest.raises(PickleRefused):
        pickles.as_array(pickles.load(content))


def test_a_cut_off_pickle_is_damaged_and_no_crash(tmp_path: Path) -> None:
    whole = pickle.dumps(body())
    path = tmp_path / "SMPLX_NEUTRAL.pkl"
    for length in (0, 1, 10, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(PickleRefused, match="damaged"):
            read_arrays(path)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04cut", b"\x93NUMPY no zip"])
def test_a_file_that_is_no_npz_is_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "SMPLX_NEUTRAL.npz"
    path.write_bytes(content)
    with pytest.raises(NotABodyModel, match=r"SMPLX_NEUTRAL\.npz"):
        convert_smplx(path, tmp_path / "out.npz")


@pytest.mark.parametrize("flipped", [0xFF, 0x01])
def test_an_npz_with_any_damaged_byte_is_named_or_read_and_no_crash(
    tmp_path: Path, flipped: int
) -> None:
    path = tmp_path / "SMPLX_NEUTRAL.npz"
    np.savez_compressed(path, f=np.arange(40), v_template=RNG.random(8))
    whole, said = path.read_bytes(), list[str]()
    for at in range(len(whole)):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ flipped]) + whole[at + 1 :])
        try:
            read_arrays(path)
        except NotABodyModel as error:
            said.append(error.message)
    assert len(said) > len(whole) / 2
    assert all("SMPLX_NEUTRAL.npz" in message for message in said)


def test_what_a_body_lacks_is_named_and_no_file_is_written(tmp_path: Path) -> None:
    model = body()
    del model["weights"], model["f"]
    source = tmp_path / "SMPLX_NEUTRAL.pkl"
    source.write_bytes(pickle.dumps(model))
    with pytest.raises(NotABodyModel, match="has no weights, f"):
        convert_smplx(source)
    source.write_bytes(pickle.dumps([1, 2]))
    with pytest.raises(NotABodyModel, match="no table"):
        convert_smplx(source)
    with pytest.raises(NotABodyModel, match="No such file"):
        convert_smplx(tmp_path / "none.pkl")
    assert not source.with_suffix(".npz").exists()
