"""Choose the ISO 8559-1 landmarks of the free body and write landmarks.json.

Each landmark is one vertex, found on the neutral template by a rule of anatomy in terms of the
skeleton, the stature H and the surface; right landmarks mirror the left ones.  All three
genders share the topology, and `picture.py` shows that the vertices sit where they should on
all of them: look at its pictures after every change here.

    python recipes/landmarks/choose.py

Where the surface shows nothing, as at the ribs and the hip bone, heights as shares of the stature
come from ANSUR II (Gordon et al. 2014, NATICK/TR-15/007; 1,986 women and 4,082 men).
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from worker.avatar.body.free import free_body
from worker.avatar.measure.anatomy import ARMS, ARMS_DOWN_DEG, SkinnedBody, lower_arms
from worker.avatar.measure.crotch import midline
from worker.avatar.measure.landmarks import Landmarks, from_mapping, topology_digest
from worker.avatar.measure.sections import Surface
from worker.avatar.types import BoolArray, Float64Array, Gender

TARGET = Path(__file__).parents[2] / "worker" / "avatar" / "body" / "data" / "landmarks.json"
HIP, KNEE, ANKLE, NECK, SHOULDER, ELBOW, WRIST = 1, 4, 7, 12, 16, 18, 20

ACROMION_UP_DEG = 60
"""The shoulder point is where the shoulder of a body with lowered arms turns from roof to wall:
the outermost vertex in a direction this far above the horizontal."""
CERVICALE_HEIGHT, NOTCH_HEIGHT, RIB_HEIGHT, CREST_HEIGHT = 0.860, 0.818, 0.643, 0.608
KNEECAP_HEIGHT = 0.277
"""Shares of the stature: seventh cervical vertebra, suprasternal notch, tenth rib, iliac crest,
middle of the kneecap; the mean of women and men."""


def choose(vertices: Float64Array, body: SkinnedBody) -> Landmarks:
    """The landmarks on one template (V, 3) in the T-pose, metres."""
    finder = _Finder(vertices, body)
    left = {
        "neck_side": finder.neck_side(),
        "acromion": finder.acromion(),
        "bust_point": finder.bust_point(),
        "lowest_rib": finder.flank(RIB_HEIGHT),
        "iliac_crest": finder.flank(CREST_HEIGHT),
        "gluteal": finder.gluteal(),
        "olecranon": finder.behind(ELBOW, -0.012, 0.012),
        "ulnar_styloid": finder.behind(WRIST, -0.015, 0.002),
        "knee": finder.kneecap(),
        "malleolus": finder.malleolus(),
        "heel": finder.heel(),
    }
    both = {f"{name}_left": vertex for name, vertex in left.items()}
    both |= {f"{name}_right": finder.mirrored(vertex) for name, vertex in left.items()}
    return from_mapping(
        {
            "vertex": finder.crown(),
            "cervicale": finder.on_midline(finder.height(CERVICALE_HEIGHT), front=False),
            "suprasternale": finder.on_midline(finder.height(NOTCH_HEIGHT), front=True),
            "neck_front": finder.below_the_larynx(),
            "crotch": finder.crotch(),
        }
        | both,
        vertices=len(vertices),
    )


class _Finder:
    """Rules on one template; every method answers a vertex of the person's left side."""

    def __init__(self, vertices: Float64Array, body: SkinnedBody) -> None:
        self.v = np.asarray(vertices, dtype=np.float64)
        weights = np.asarray(body.lbs_weights, dtype=np.float64)
        self.joints: Float64Array = np.asarray(body.J_regressor, dtype=np.float64) @ self.v
        self.floor = float(self.v[:, 1].min())
        self.stature = float(np.ptp(self.v[:, 1]))
        arm = {side: weights[:, joints].sum(axis=1) for side, joints in ARMS.items()}
        self.trunk: BoolArray = arm["left"] + arm["right"] < 0.5
        surface = Surface(body.faces, np.ones(len(self.v), dtype=np.bool_))
        self.skin = _largest_part(len(self.v), surface)
        self.edges = surface.edges[self.skin[surface.edges].all(axis=1)]
        self.arms_down = lower_arms(self.v, self.joints, arm, ARMS_DOWN_DEG)

    def height(self, share: float) -> float:
        return self.floor + share * self.stature

    def mirrored(self, vertex: int) -> int:
        gap = np.linalg.norm(self.v - self.v[vertex] * (-1, 1, 1), axis=1)
        return int(np.argmin(np.where(self.skin, gap, np.inf)))

    def crown(self) -> int:
        return self._best(np.abs(self.v[:, 0]) < 0.01, self.v[:, 1])

    def crotch(self) -> int:
        line = midline(self.v, self.edges)
        return int(line[np.argmin(self.v[line, 1])])

    def on_midline(self, height: float, *, front: bool) -> int:
        """The outermost midline vertex nearest to a height."""
        x, y, z = self.v.T
        middle = self.joints[NECK, 2]
        side = z > middle if front else z < middle
        near = (np.abs(x) < 0.004) & side & (np.abs(y - height) < 0.03)
        return self._best(near & self.trunk, -np.abs(y - height))

    def below_the_larynx(self) -> int:
        """Between the notch of the breastbone and the corner under the chin, 70 % of the way up.

        On the smooth neck of a template the Adam's apple cannot be seen.  The notch lies level
        with the disc below the second thoracic vertebra, the hyoid bone in the corner with the
        third cervical one and the laryngeal prominence, 77 % of the way up, between the fourth
        and the fifth.
        """
        x, y, z = self.v.T
        notch = self.on_midline(self.height(NOTCH_HEIGHT), front=True)
        line = (np.abs(x) < 0.004) & self.skin & (y > y[notch]) & (z > self.joints[NECK, 2] + 0.02)
        # Under the chin the midline turns from upright to level: the slope passes 45°.
        order = np.flatnonzero(line)[np.argsort(y[line])]
        steps = np.diff(self.v[order][:, [1, 2]], axis=0)
        corner = order[int(np.argmax(steps[:, 1] > steps[:, 0]))]
        return self._best(line, -np.abs(y - (y[notch] + 0.70 * (y[corner] - y[notch]))))

    def neck_side(self) -> int:
        """Where the front edge of the trapezius leaves the neck, level with its lower joint."""
        x, y, z = self.v.T
        joint = self.joints[NECK]
        near = self.trunk & (np.abs(y - joint[1]) < 0.01) & (np.abs(z - joint[2]) < 0.02)
        return self._best(near, x)

    def acromion(self) -> int:
        x, y, z = self.arms_down.T
        joint = self.joints[SHOULDER]
        near = (np.abs(z - joint[2]) < 0.012) & (np.abs(x - joint[0]) < 0.06)
        angle = math.radians(ACROMION_UP_DEG)
        return self._best(near, math.cos(angle) * x + math.sin(angle) * y)

    def bust_point(self) -> int:
        """The centre of the nipple: MakeHuman's mesh is by far densest there."""
        x, y, z = self.v.T
        breast = np.flatnonzero(
            self.skin
            & (x > 0.03)
            & (x < 0.12)
            & (z > 0)
            & (y > self.height(0.68))
            & (y < self.height(0.78))
        )
        apart = np.linalg.norm(self.v[breast][:, None] - self.v[breast][None], axis=2)
        return int(breast[np.argmin(np.sort(apart, axis=1)[:, 1:13].mean(axis=1))])

    def flank(self, share: float) -> int:
        """The outermost point of the trunk nearest to a height."""
        x, y, _ = self.v.T
        near = self.trunk & (np.abs(y - self.height(share)) < 0.006 * self.stature)
        return self._best(near, x)

    def gluteal(self) -> int:
        x, y, z = self.v.T
        seat = (x > 0.02) & (y > self.height(0.47)) & (y < self.height(0.57))
        return self._best(seat, -z)

    def behind(self, joint: int, from_m: float, to_m: float) -> int:
        """The rearmost point of the arm beside a joint: thumbs point ahead in the T-pose.

        At the wrist only the forearm's side counts: on the other the hand is already wider.
        """
        x, y, z = self.v.T
        along = x - self.joints[joint, 0]
        near = (along > from_m) & (along < to_m) & ~self.trunk
        return self._best(near & (np.abs(y - self.joints[joint, 1]) < 0.03), -z)

    def kneecap(self) -> int:
        x, y, z = self.v.T
        near = (np.abs(y - self.height(KNEECAP_HEIGHT)) < 0.012) & (x > 0)
        return self._best(near & (np.abs(x - self.joints[KNEE, 0]) < 0.02), z)

    def malleolus(self) -> int:
        x = self.v[:, 0]
        near = np.linalg.norm((self.v - self.joints[ANKLE])[:, 1:], axis=1) < 0.02
        return self._best(near & (x > 0), x)

    def heel(self) -> int:
        """The lowest point of the rear third of the foot."""
        x, y, z = self.v.T
        foot = (x > 0) & (y < self.height(0.03))
        rear = z < z[foot].min() + np.ptp(z[foot]) / 3
        return self._best(foot & rear, -y)

    def _best(self, among: BoolArray, score: Float64Array) -> int:
        among = among & self.skin
        if not among.any():
            raise SystemExit("a rule found no vertex: has the topology changed?")
        return int(np.argmax(np.where(among, score, -np.inf)))


def _largest_part(count: int, surface: Surface) -> NDArray[np.bool_]:
    """The vertices of the skin: eyes, teeth and tongue are parts of their own."""
    graph = coo_matrix((np.ones(len(surface.edges)), surface.edges.T), shape=(count, count))
    _, label = connected_components(graph, directed=False)
    return label == np.bincount(label).argmax()


def main() -> None:
    """Write landmarks.json for the topology of the free body."""
    body = free_body(Gender.NEUTRAL)
    record = {
        "topologies": [
            {
                "name": "free body",
                "faces_sha256": topology_digest(body.faces),
                "landmarks": asdict(choose(np.asarray(body.v_template, dtype=np.float64), body)),
            }
        ]
    }
    TARGET.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    print(f"wrote {TARGET.name}")


if __name__ == "__main__":
    main()
