"""`avatar-worker bench body`: our body module beside `smplx`, and its derivatives.

Both pose the same random bodies from the same file, in turns.  The free body has no pose
correctives; what they cost is measured on the same body with 486 made-up ones, as many as the
operator's SMPL-X has.  Derivatives are those that the fit asks for: 700 points of the outline a
view, by 50 betas, by turns of 18 joints and by the place, in float64.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch.profiler import ProfilerActivity, profile

from tests.benchmarks.figures_of_time import in_turns, load_average
from worker.avatar.body.articulated import ArticulatedShape
from worker.avatar.body.files import save_smplx_npz
from worker.avatar.body.free import free_body
from worker.avatar.body.jacobian import SkinnedPoints, VertexMixtures
from worker.avatar.body.model import BodyData, BodyModel, rotation_matrices
from worker.avatar.fit import priors
from worker.avatar.types import Gender

BATCHES: Final = (1, 32)
NUM_BETAS: Final = 50
OUTLINE_POINTS: Final = 700
CORRECTIVES: Final = 486
Pose = Callable[[], torch.Tensor]


@dataclass(frozen=True, slots=True)
class Measured:
    """One batch of one body, posed by both."""

    body: str
    batch: int
    ours_ms: float
    smplx_ms: float
    ratio: float
    """Median over the rounds of smplx's time over ours."""
    apart_m: float
    """Greatest distance along an axis between the two's vertices."""
    ours_mb: float
    smplx_mb: float
    """Greatest memory that tensors held while posing, above what the model holds."""


@dataclass(frozen=True, slots=True)
class Derived:
    """What derivatives cost."""

    views: int
    mesh_ms: float
    """Forward of all vertices of the body that is fitted."""
    points_ms: float
    """Forward of the outline's points alone."""
    rows_ms: float
    """Forward of these points and their derivatives along one direction each: what a step needs."""
    jacobian_ms: float
    """The same along all three axes."""


def bodies() -> dict[str, BodyData]:
    """The free body, and the same with made-up pose correctives."""
    plain = free_body(Gender.NEUTRAL)
    shape = (len(plain.v_template), 3, CORRECTIVES)
    made_up = 1e-3 * np.random.default_rng(0).standard_normal(shape, dtype=np.float32)
    return {"free": plain, "with pose correctives": replace(plain, posedirs=made_up)}


def measure_forward(device: torch.device, rounds: int) -> list[Measured]:
    """Pose every body in every batch, in turns with `smplx`."""
    found = []
    for name, data in bodies().items():
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "smplx" / "SMPLX_NEUTRAL.npz"
            path.parent.mkdir()
            save_smplx_npz(path, data)
            model = BodyModel(data, NUM_BETAS).to(device)
            for batch in BATCHES:
                inputs = _random_bodies(batch, device)
                poses = {
                    "ours": _ours(model, inputs),
                    "smplx": _smplx(Path(folder), inputs, device),
                }
                found.append(_compared(name, batch, poses, device, rounds))
    return found


def _compared(
    name: str, batch: int, poses: Mapping[str, Pose], device: torch.device, rounds: int
) -> Measured:
    with torch.inference_mode():
        apart = float((poses["ours"]() - poses["smplx"]()).abs().max())
        seconds = in_turns(poses, rounds, device)
        memory = {who: _peak_mb(pose, device) for who, pose in poses.items()}
    return Measured(
        body=name,
        batch=batch,
        ours_ms=_ms(seconds["ours"]),
        smplx_ms=_ms(seconds["smplx"]),
        ratio=statistics.median(
            peer / own for peer, own in zip(seconds["smplx"], seconds["ours"], strict=True)
        ),
        apart_m=apart,
        ours_mb=memory["ours"],
        smplx_mb=memory["smplx"],
    )


def measure_derivatives(device: torch.device, rounds: int) -> list[Derived]:
    """Take the derivatives that a step of the fit takes, for one view and for two."""
    shape = ArticulatedShape(free_body(Gender.NEUTRAL), NUM_BETAS).to(device)
    turned = torch.tensor(priors.FITTED_JOINTS, device=device)
    return [_derived(shape, turned, views, rounds) for views in (1, 2)]


def _derived(shape: ArticulatedShape, turned: torch.Tensor, views: int, rounds: int) -> Derived:
    device = shape.template.device
    betas, pose, transl = (each.double() for each in _random_bodies(views, device).values())
    rotations = shape.global_rotations(rotation_matrices(pose[:, :22]))
    posed = shape.posed(betas[0], rotations, transl)
    generator = torch.Generator().manual_seed(3)
    edges = torch.randint(len(shape.template), (views, OUTLINE_POINTS, 2), generator=generator)
    edges = edges.to(device)
    halves = torch.full_like(edges, 0.5, dtype=torch.float64)
    points: SkinnedPoints = VertexMixtures(shape, edges, halves)
    along = points.points(posed).unsqueeze(2)
    with torch.inference_mode():
        seconds = in_turns(
            {
                "mesh": lambda: shape.vertices(posed),
                "points": lambda: points.points(posed),
                "rows": lambda: (points.points(posed), points.at(posed).rows(turned, along)),
                "jacobian": lambda: points.jacobian(posed, turned),
            },
            rounds,
            device,
        )
    return Derived(views, *(_ms(seconds[key]) for key in ("mesh", "points", "rows", "jacobian")))


def _random_bodies(batch: int, device: torch.device) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(8559)
    drawn = {
        "betas": torch.randn(batch, NUM_BETAS, generator=generator),
        "pose": 0.4 * torch.randn(batch, 55, 3, generator=generator),
        "transl": torch.randn(batch, 3, generator=generator),
    }
    return {name: value.to(device) for name, value in drawn.items()}


def _ours(model: BodyModel, inputs: Mapping[str, torch.Tensor]) -> Pose:
    return lambda: model(**inputs).vertices


def _smplx(folder: Path, inputs: Mapping[str, torch.Tensor], device: torch.device) -> Pose:
    import smplx  # a peer: the worker itself runs without it

    model = smplx.create(
        str(folder),
        model_type="smplx",
        gender="neutral",
        ext="npz",
        num_betas=NUM_BETAS,
        num_expression_coeffs=10,
        use_pca=False,
        flat_hand_mean=True,
        batch_size=len(inputs["betas"]),
    ).to(device)
    flat = inputs["pose"].flatten(1)
    at = {"global_orient": 0, "body_pose": 3, "jaw_pose": 66, "leye_pose": 69, "reye_pose": 72}
    at |= {"left_hand_pose": 75, "right_hand_pose": 120}
    ends = [*list(at.values())[1:], 165]
    parts = {name: flat[:, start:end] for (name, start), end in zip(at.items(), ends, strict=True)}
    return lambda: model(betas=inputs["betas"], transl=inputs["transl"], **parts).vertices


def _peak_mb(pose: Pose, device: torch.device) -> float:
    """Give the greatest memory of tensors while posing, above what there was before."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        pose()
        return float(torch.cuda.max_memory_allocated(device) - before) / 1e6
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as recorded:
        pose()
    with tempfile.TemporaryDirectory() as folder:
        trace = Path(folder) / "trace.json"
        recorded.export_chrome_trace(str(trace))
        events = json.loads(trace.read_text())["traceEvents"]
    held = [event["args"]["Total Allocated"] for event in events if event.get("name") == "[memory]"]
    return max(held) / 1e6


def _ms(seconds: Sequence[float]) -> float:
    return statistics.median(seconds) * 1e3


def document(
    forward: Sequence[Measured], derived: Sequence[Derived], device: torch.device
) -> dict[str, Any]:
    """What `--json` prints."""
    return {
        "device": str(device),
        "threads": torch.get_num_threads(),
        "load": load_average(),
        "forward": [
            {
                "body": each.body,
                "batch": each.batch,
                "oursMs": round(each.ours_ms, 2),
                "smplxMs": round(each.smplx_ms, 2),
                "ratio": round(each.ratio, 2),
                "apartM": each.apart_m,
                "oursMb": round(each.ours_mb, 1),
                "smplxMb": round(each.smplx_mb, 1),
            }
            for each in forward
        ],
        "derivatives": [
            {
                "views": each.views,
                "meshMs": round(each.mesh_ms, 2),
                "pointsMs": round(each.points_ms, 2),
                "rowsMs": round(each.rows_ms, 2),
                "jacobianMs": round(each.jacobian_ms, 2),
                "rowsOverMesh": round(each.rows_ms / each.mesh_ms, 2),
                "rowsOverPoints": round(each.rows_ms / each.points_ms, 2),
                "jacobianOverPoints": round(each.jacobian_ms / each.points_ms, 2),
            }
            for each in derived
        ],
    }


def tables(report: dict[str, Any]) -> list[Table]:
    """The same for people."""
    forward = Table(
        *("body", "batch", "ours ms", "smplx ms", "smplx/ours", "apart mm", "ours MB", "smplx MB"),
        title=f"forward, {report['device']}, {report['threads']} thread(s)",
    )
    for row in report["forward"]:
        forward.add_row(
            *(str(row[key]) for key in ("body", "batch", "oursMs", "smplxMs", "ratio")),
            *(f"{row['apartM'] * 1000:.4f}", str(row["oursMb"]), str(row["smplxMb"])),
        )
    keys = ("views", "meshMs", "pointsMs", "rowsMs", "jacobianMs", "rowsOverMesh", "rowsOverPoints")
    derived = Table(
        *("views", "all vertices ms", "points ms", "+ rows ms", "+ Jacobian ms"),
        *("rows/all", "rows/points"),
        title=f"derivatives of {OUTLINE_POINTS} points a view by {NUM_BETAS} betas, 18 joints",
    )
    for row in report["derivatives"]:
        derived.add_row(*(str(row[key]) for key in keys))
    return [forward, derived]


def main() -> None:
    """Read the command line and print tables or JSON."""
    parser = argparse.ArgumentParser(prog="avatar-worker bench body", description=__doc__)
    parser.add_argument("--rounds", type=int, default=15, help="of each (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=1, help="of torch (default: %(default)s)")
    parser.add_argument("--device", default="cpu", help="cpu (default) or cuda")
    parser.add_argument("--json", action="store_true", help="print one JSON object on stdout")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    device = torch.device(given.device)
    report = document(
        measure_forward(device, given.rounds), measure_derivatives(device, given.rounds), device
    )
    if given.json:
        print(json.dumps(report))  # noqa: T201 - this is what --json is for
        return
    console = Console(width=None if sys.stdout.isatty() else 120)
    for table in tables(report):
        console.print(table)


if __name__ == "__main__":
    main()
