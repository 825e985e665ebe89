"""The GLB as a reader finds it: parsed from its bytes, skinned by the glTF specification."""

import json
import struct
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from worker.avatar.body.free import display_topology, free_body
from worker.avatar.body.model import DisplayMesh
from worker.avatar.body.poses import a_pose, t_pose
from worker.avatar.export.dress import Part, dress
from worker.avatar.export.glb import glb_bytes, write_glb
from worker.avatar.export.skinned import (
    WEIGHT_ONE,
    SkinnedBody,
    skinned_body,
    strongest_influences,
    vertex_normals,
)
from worker.avatar.types import Gender

HEIGHT_M = 1.78
SKIN = (198, 150, 125)
TYPES = {5121: np.uint8, 5123: np.uint16, 5126: np.float32}
WIDTHS = {"SCALAR": 1, "VEC3": 3, "VEC4": 4, "MAT4": 16}


@dataclass
class Glb:
    """A reader of our own, so that the writer's library is not its own judge."""

    document: dict[str, Any]
    binary: bytes

    @classmethod
    def parse(cls, data: bytes) -> "Glb":
        magic, version, length = struct.unpack_from("<4sII", data)
        assert (magic, version, length) == (b"glTF", 2, len(data))
        json_length, kind = struct.unpack_from("<I4s", data, 12)
        assert kind == b"JSON"
        bin_length, kind = struct.unpack_from("<I4s", data, 20 + json_length)
        assert kind == b"BIN\0"
        start = 28 + json_length
        return cls(json.loads(data[20 : 20 + json_length]), data[start : start + bin_length])

    def array(self, number: int) -> np.ndarray:
        accessor = self.document["accessors"][number]
        view = self.document["bufferViews"][accessor["bufferView"]]
        kind, width = TYPES[accessor["componentType"]], WIDTHS[accessor["type"]]
        offset = view.get("byteOffset", 0) + accessor.get("byteOffset", 0)
        flat = np.frombuffer(self.binary, kind, accessor["count"] * width, offset)
        return flat.reshape(-1, width) if width > 1 else flat

    @property
    def primitives(self) -> list[dict[str, Any]]:
        (mesh,) = self.document["meshes"]
        primitives: list[dict[str, Any]] = mesh["primitives"]
        return primitives

    def attribute(self, name: str) -> np.ndarray:
        (accessor,) = {primitive["attributes"][name] for primitive in self.primitives}
        return self.array(accessor)

    def triangles(self) -> np.ndarray:
        parts = [self.array(primitive["indices"]) for primitive in self.primitives]
        return np.concatenate(parts).reshape(-1, 3)

    def world(self) -> np.ndarray:
        """Global matrices (nodes, 4, 4)."""
        nodes = self.document["nodes"]
        matrices = np.full((len(nodes), 4, 4), np.nan)

        def visit(number: int, above: np.ndarray) -> None:
            node = nodes[number]
            local = np.eye(4)
            local[:3, :3] = Rotation.from_quat(node.get("rotation", [0, 0, 0, 1])).as_matrix()
            local[:3, 3] = node.get("translation", [0, 0, 0])
            matrices[number] = above @ local
            for child in node.get("children", []):
                visit(child, matrices[number])

        for root in self.document["scenes"][self.document["scene"]]["nodes"]:
            visit(root, np.eye(4))
        return matrices

    def skinned(self) -> np.ndarray:
        """Vertices (N, 3) as a viewer shows them (glTF 2.0, 3.7.3)."""
        (skin,) = self.document["skins"]
        inverse = self.array(skin["inverseBindMatrices"]).reshape(-1, 4, 4).transpose(0, 2, 1)
        joints = self.world()[skin["joints"]] @ inverse
        weights = self.attribute("WEIGHTS_0") / WEIGHT_ONE
        matrix = np.einsum("nk,nkij->nij", weights, joints[self.attribute("JOINTS_0")])
        points = np.c_[self.attribute("POSITION"), np.ones(len(weights))]
        return np.einsum("nij,nj->ni", matrix, points)[:, :3]


@cache
def body_in(pose_name: str, gender: Gender = Gender.NEUTRAL) -> SkinnedBody:
    data = free_body(gender)
    pose = {
        "apose": a_pose(25.0),
        "tpose": t_pose(),
        "walking": np.random.default_rng(5).normal(0, 0.2, (55, 3)),
    }[pose_name]
    betas = np.zeros(10)
    betas[:3] = (0.7, -1.1, 0.4)
    shaped = data.v_template + data.shapedirs[:, :, :10] @ betas
    scale = HEIGHT_M / float(np.ptp(shaped[:, 1]))
    return skinned_body(data, display_topology(), betas=betas, pose=pose, scale=scale)


@cache
def glb_in(pose_name: str, gender: Gender = Gender.NEUTRAL) -> Glb:
    return Glb.parse(glb_bytes(body_in(pose_name, gender), skin=SKIN, extras={"body": "free"}))


@pytest.mark.parametrize("pose_name", ["apose", "tpose", "walking"])
def test_the_feet_stand_on_the_ground_in_the_display_pose(pose_name: str) -> None:
    glb = glb_in(pose_name)
    assert abs(glb.skinned()[:, 1].min()) < 1e-5


@pytest.mark.parametrize("gender", list(Gender))
def test_the_t_pose_has_the_declared_height(gender: Gender) -> None:
    vertices = glb_in("tpose", gender).skinned()
    assert abs(np.ptp(vertices[:, 1]) - HEIGHT_M) < 1e-3
    assert abs(glb_in("apose", gender).attribute("POSITION")[:, 1].min()) < 1e-6


@pytest.mark.parametrize("gender", list(Gender))
def test_the_file_is_small_and_has_all_joints(gender: Gender, tmp_path: Path) -> None:
    size = write_glb(tmp_path / "a.glb", body_in("apose", gender), skin=SKIN, extras={})
    assert size == (tmp_path / "a.glb").stat().st_size < 2_000_000
    glb = glb_in("apose", gender)
    assert len(glb.triangles()) <= 10_000
    (skin,) = glb.document["skins"]
    names = [glb.document["nodes"][joint]["name"] for joint in skin["joints"]]
    assert len(names) == len(set(names)) == 55
    assert names[:3] == ["pelvis", "left_hip", "right_hip"]
    assert "extensionsUsed" not in glb.document


def test_the_left_hand_is_at_plus_x_and_the_toes_point_to_plus_z() -> None:
    glb = glb_in("apose")
    (skin,) = glb.document["skins"]
    place = {
        glb.document["nodes"][joint]["name"]: glb.world()[joint][:3, 3] for joint in skin["joints"]
    }
    assert place["left_wrist"][0] > 0.5 > -0.5 > place["right_wrist"][0]
    assert place["left_foot"][2] > place["left_ankle"][2] + 0.05
    assert place["head"][1] > 1.4


def test_the_arms_hang_by_the_angle_asked_for() -> None:
    glb = glb_in("apose")
    (skin,) = glb.document["skins"]
    world = dict(zip(skin["joints"], glb.world()[skin["joints"]], strict=True))
    bound = {
        joint: np.linalg.inv(matrix.reshape(4, 4).T)[:3, 3]
        for joint, matrix in zip(
            skin["joints"], glb.array(skin["inverseBindMatrices"]), strict=True
        )
    }
    names = {glb.document["nodes"][joint]["name"]: joint for joint in skin["joints"]}
    shoulder, wrist = names["left_shoulder"], names["left_wrist"]
    arm = world[wrist][:3, 3] - world[shoulder][:3, 3]
    rest = bound[wrist] - bound[shoulder]
    turned = np.arccos(arm @ rest / np.linalg.norm(arm) / np.linalg.norm(rest))
    assert np.rad2deg(turned) == pytest.approx(25.0, abs=0.5)
    assert arm[1] < rest[1]


def test_the_display_follows_the_full_body_within_a_few_millimetres() -> None:
    """Four influences and moved hem vertices change nothing that can be seen."""
    body = body_in("walking")
    data = free_body(Gender.NEUTRAL)
    mesh = dress(data, display_topology())
    exact = SkinnedBody.posed(body)[0]
    weights = mesh.sample(data.lbs_weights)
    glb = glb_in("walking")
    (skin,) = glb.document["skins"]
    inverse = glb.array(skin["inverseBindMatrices"]).reshape(-1, 4, 4).transpose(0, 2, 1)
    joints = glb.world()[skin["joints"]] @ inverse
    points = np.c_[glb.attribute("POSITION"), np.ones(len(weights))]
    every = np.einsum("nj,jab,nb->na", weights, joints, points)[:, :3]
    assert np.linalg.norm(every - exact, axis=1).max() < 8e-3


def test_the_preview_poses_as_the_file_does() -> None:
    np.testing.assert_allclose(
        body_in("walking").posed()[0], glb_in("walking").skinned(), atol=1e-5
    )


def test_weights_add_up_and_unused_joints_are_zero() -> None:
    glb = glb_in("apose")
    weights, joints = glb.attribute("WEIGHTS_0"), glb.attribute("JOINTS_0")
    assert (weights.astype(int).sum(axis=1) == WEIGHT_ONE).all()
    assert not joints[weights == 0].any()
    assert joints.max() < 55


def test_rounded_weights_keep_the_strongest_joint_first() -> None:
    weights = np.random.default_rng(0).dirichlet(np.full(55, 0.1), 200)
    index, whole = strongest_influences(weights)
    assert (whole.astype(int).sum(axis=1) == WEIGHT_ONE).all()
    np.testing.assert_array_equal(index[:, 0], weights.argmax(axis=1))
    assert (np.diff(whole.astype(int), axis=1) <= 0).all()


def test_bounds_hold_every_position() -> None:
    glb = glb_in("apose")
    accessor = glb.document["accessors"][glb.primitives[0]["attributes"]["POSITION"]]
    positions = glb.attribute("POSITION")
    np.testing.assert_array_equal(np.float32(accessor["min"]), positions.min(axis=0))
    np.testing.assert_array_equal(np.float32(accessor["max"]), positions.max(axis=0))


def test_normals_point_outwards() -> None:
    glb = glb_in("tpose")
    normals, faces = glb.attribute("NORMAL"), glb.triangles()
    np.testing.assert_allclose(np.linalg.norm(normals, axis=1), 1.0, atol=1e-5)
    corners = glb.attribute("POSITION")[faces].astype(np.float64)
    flat = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    agreeing = (flat * normals[faces].mean(axis=1)).sum(axis=1) > 0
    area = np.linalg.norm(flat, axis=1)
    assert area[agreeing].sum() / area.sum() > 0.995
    # Outwards, not inwards: the signed volume of a person is positive.
    volume = np.einsum("fi,fi->f", corners[:, 0], np.cross(corners[:, 1], corners[:, 2])).sum() / 6
    assert 0.03 < volume < 0.15


def test_normals_of_a_tetrahedron_point_away_from_its_middle() -> None:
    vertices = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1], [5, 5, 5]], dtype=np.float64)
    faces = np.array([[0, 2, 1], [0, 1, 3], [0, 3, 2], [1, 2, 3]])
    normals = vertex_normals(vertices, faces)
    away = vertices[:4] - vertices[:4].mean(axis=0)
    assert ((normals[:4] * away).sum(axis=1) > 0).all()
    np.testing.assert_array_equal(normals[4], [0, 1, 0])  # no face: any unit vector


def test_the_skin_has_the_colour_of_the_photo_and_nothing_is_metal() -> None:
    materials = {material["name"]: material for material in glb_in("apose").document["materials"]}
    assert {Part.SKIN, Part.TOP, Part.SHORTS} <= set(materials) <= set(Part)
    red, green, blue, alpha = materials["skin"]["pbrMetallicRoughness"]["baseColorFactor"]
    # 198, 150, 125 in linear light, by the sRGB formula.
    assert (red, green, blue, alpha) == pytest.approx((0.5647, 0.3050, 0.2051, 1.0), abs=1e-4)
    for material in materials.values():
        assert material["pbrMetallicRoughness"]["metallicFactor"] == 0


@pytest.mark.parametrize("gender", list(Gender))
def test_the_body_is_decently_dressed(gender: Gender) -> None:
    data = free_body(gender)
    mesh = dress(data, display_topology())
    template = mesh.sample(np.asarray(data.v_template))
    joints = data.J_regressor @ data.v_template
    hip, knee, neck, shoulder = (joints[number] for number in (1, 4, 12, 16))

    def vertices(*parts: Part) -> np.ndarray:
        return template[np.unique(np.concatenate([mesh.faces[part] for part in parts]))]

    bare = vertices(Part.SKIN)
    trunk = bare[abs(bare[:, 0]) < shoulder[0]]
    between = (trunk[:, 1] > 0.7 * hip[1] + 0.3 * knee[1]) & (trunk[:, 1] < neck[1] - 0.12)
    assert not between.any(), "skin between mid-thigh and chest"
    clothes = vertices(Part.TOP, Part.SHORTS)
    assert clothes[:, 1].max() < neck[1] + 0.06
    assert clothes[:, 1].min() > 0.5 * (hip[1] + knee[1]) - 0.05


def test_hems_lie_on_one_line_and_no_triangle_is_added() -> None:
    data, display = free_body(Gender.NEUTRAL), display_topology()
    mesh = dress(data, display)
    assert sum(map(len, mesh.faces.values())) == len(display.faces)
    template = mesh.sample(np.asarray(data.v_template))
    hem = np.intersect1d(mesh.faces[Part.TOP], mesh.faces[Part.SHORTS])
    assert len(hem) > 20
    assert np.ptp(template[hem, 1]) < 1e-6
    assert mesh.slide.max() <= 0.5


def test_eyes_have_both_their_irises_or_none() -> None:
    data, display = free_body(Gender.NEUTRAL), display_topology()
    parts = set(dress(data, display).faces)
    assert (Part.IRIS in parts) == (Part.EYE_WHITE in parts)

    # Eyeballs as coarse as an octahedron cannot show one.
    shown, template = display.vertex_index, data.v_template
    is_eye = data.lbs_weights[:, 23:25].argmax(axis=1)
    in_eye = data.lbs_weights[:, 23:25].sum(axis=1) > 0.5
    tips: list[int] = []
    for side in (0, 1):
        ball = np.flatnonzero(in_eye & (is_eye == side))
        for axis in template[ball].T:
            tips += [ball[axis.argmax()], ball[axis.argmin()]]
    octahedron = np.array([[x, y, z] for x in (0, 1) for y in (2, 3) for z in (4, 5)])
    first = len(shown)
    coarse = DisplayMesh(
        np.concatenate((shown, tips)),
        np.concatenate(
            (
                display.faces[~in_eye[shown][display.faces].any(axis=1)],
                octahedron + first,
                octahedron + first + 6,
            )
        ),
    )
    mesh = dress(data, coarse)
    assert set(mesh.faces) == {Part.SKIN, Part.TOP, Part.SHORTS}
    assert sum(map(len, mesh.faces.values())) == len(coarse.faces)


def test_the_same_body_gives_the_same_bytes() -> None:
    again = glb_bytes(body_in("apose"), skin=SKIN, extras={"body": "free"})
    assert again == glb_bytes(body_in("apose"), skin=SKIN, extras={"body": "free"})
    assert Glb.parse(again).document["asset"]["extras"] == {"body": "free"}
