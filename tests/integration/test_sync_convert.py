"""A pickle as SMPL-X ships it, converted at place time, is the body that the worker loads."""

import pickle
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import scipy.sparse

from models_sync.convert import convert_smplx
from models_sync.place import place
from worker.avatar.body.files import load_smplx_npz, save_smplx_npz
from worker.avatar.body.free import free_body
from worker.avatar.types import Gender


@pytest.fixture
def official(tmp_path: Path) -> Path:
    """The free body in an official pickle's clothes: sparse regressor, names, nested tables."""
    plain = tmp_path / "plain.npz"
    save_smplx_npz(plain, free_body(Gender.NEUTRAL))
    with np.load(plain) as archive:
        entries = {name: archive[name] for name in archive.files}
    entries["J_regressor"] = scipy.sparse.csc_matrix(entries["J_regressor"])
    entries |= {"joint2num": {"Pelvis": 0}, "bs_style": "lbs", "part2num": {"head": 1}}
    path = tmp_path / "volume" / "smplx" / "SMPLX_NEUTRAL.pkl"
    path.parent.mkdir(parents=True)
    path.write_bytes(pickle.dumps(entries, 2))
    return path


def test_place_converts_it_and_the_worker_loads_the_same_body(
    official: Path, tmp_path: Path
) -> None:
    settings = SimpleNamespace(
        local_root=tmp_path / "volume",
        pixie_model_dir=tmp_path / "PIXIE",
        segmentor_path=tmp_path / "sam2",
        source_names=lambda: ("smplx",),
    )
    report = place(settings)
    assert set(report.converted[0].left_out) == {"joint2num", "bs_style", "part2num"}

    loaded = load_smplx_npz(official.with_suffix(".npz"), Gender.NEUTRAL)
    expected = load_smplx_npz(tmp_path / "plain.npz", Gender.NEUTRAL)
    for name in ("v_template", "shapedirs", "J_regressor", "lbs_weights", "faces"):
        np.testing.assert_array_equal(getattr(loaded, name), getattr(expected, name), err_msg=name)


def test_an_npz_that_holds_objects_beside_its_arrays_loads_as_it_is_and_converted(
    official: Path, tmp_path: Path
) -> None:
    """As SMPLX_NEUTRAL.npz is shipped: `joint2num` and `part2num` are pickled dicts."""
    with np.load(tmp_path / "plain.npz") as archive:
        arrays = {name: archive[name] for name in archive.files}
    shipped = tmp_path / "SMPLX_NEUTRAL.npz"
    np.savez(shipped, joint2num=np.array({"Pelvis": 0}, dtype=object), **arrays)
    direct = load_smplx_npz(shipped, Gender.NEUTRAL)

    converted = convert_smplx(shipped, tmp_path / "out.npz").target
    again = load_smplx_npz(converted, Gender.NEUTRAL)
    np.testing.assert_array_equal(direct.shapedirs, again.shapedirs)
