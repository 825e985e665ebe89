"""Starts that must go wrong, and how: shared by `make image-test` and tests/integration.

What a person must correct ends the process, with exit code 2 and a line that names the variable.
What may come right by itself, or needs a look at the status page, leaves it up and not ready.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

WRONG_SETTINGS: Final = 2


@dataclass(frozen=True)
class Start:
    """A start that goes wrong.

    Attributes:
        name: what is wrong.
        changes: variables set on top of a good environment; None removes one.
        says: a part of what is said.
        stays_up: whether the process lives on, not ready, instead of ending with code 2.
        with_cuda: what a torch with CUDA says instead.
    """

    name: str
    says: str
    changes: Mapping[str, str | None] = field(default_factory=dict)
    stays_up: bool = False
    with_cuda: str = ""


FATAL: Final = (
    Start("REDIS_URL is missing", "REDIS_URL: is not set.", {"REDIS_URL": None}),
    Start("the password of Redis is not encoded", "REDIS_URL:", {"REDIS_URL": "redis://:a/b@h:1"}),
    Start("the API is plain http", "API_BASE_URL is plain http://", {"API_BASE_URL": "http://a.b"}),
    Start(
        "sync without its bucket",
        "MODEL_SYNC_ENABLED=true needs MODEL_SYNC_MINIO_ENDPOINT",
        {"MODEL_SYNC_ENABLED": "true"},
    ),
    Start(
        "several at once, all of them named",
        "API_BASE_URL: is not set.",
        {"REDIS_URL": None, "API_BASE_URL": None},
    ),
    Start(
        "the signing secret is none",
        "API_SIGNING_SECRET: must be whsec_ followed by base64",
        {"API_SIGNING_SECRET": "abc"},
    ),
    Start("no such pose", "AVATAR_DISPLAY_POSE:", {"AVATAR_DISPLAY_POSE": "sitting"}),
    Start(
        "no such source of weights",
        "MODEL_SYNC_SOURCES names smpl;",
        {"MODEL_SYNC_SOURCES": "smpl,sam2"},
    ),
    Start("no number", "PROCESSING_TIMEOUT:", {"PROCESSING_TIMEOUT": "five minutes"}),
    Start("a GPU is asked for", "WORKER_DEVICE is cuda:", {"WORKER_DEVICE": "cuda"}),
    Start(
        "licensed estimators are asked for, and there is no GPU",
        "WORKER_DEVICE is auto, and REQUIRE_REAL_AVATAR refuses the CPU:",
        {"REQUIRE_REAL_AVATAR": "true"},
    ),
    Start("WORKER_PORT is taken", "cannot be listened on", {"WORKER_PORT": "TAKEN"}),
)
WAITING: Final = (
    Start(
        "Redis is not there",
        "Nothing listens at 127.0.0.1:1.",
        {"REDIS_URL": "redis://127.0.0.1:1"},
        stays_up=True,
    ),
    Start(
        "the file of the certificate authority is missing",
        "REDIS_SSL_CA_CERTS=/nowhere/ca.pem is not a file.",
        {"REDIS_URL": "rediss://127.0.0.1:1", "REDIS_SSL_CA_CERTS": "/nowhere/ca.pem"},
        stays_up=True,
    ),
    Start(
        "the pose models are missing",
        "/nowhere/pose_detection.tflite is missing",
        {"OBSERVER_MODEL_DIR": "/nowhere"},
        stays_up=True,
    ),
    Start(
        "licensed estimators are asked for, on the CPU",
        "no licensed estimator",
        {"REQUIRE_REAL_AVATAR": "true", "WORKER_DEVICE": "cpu"},
        stays_up=True,
    ),
    Start(
        "CUDA is asked for on RunPod, and there is none",
        "built without CUDA",
        {"WORKER_DEVICE": "cuda", "RUNPOD_POD_ID": "a-pod"},
        stays_up=True,
        with_cuda="There is no NVIDIA driver",
    ),
)
