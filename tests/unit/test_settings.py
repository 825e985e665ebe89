"""The environment: read whole, refused clearly, and never told to anyone who should not know."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from worker.errors import SettingsError
from worker.settings import Settings, child_environment, describe

GOOD = {
    "REDIS_URL": "redis://:hunter2secret@redis.example.com:6379",
    "API_BASE_URL": "https://api.example.com",
    "MINIO_ENDPOINT": "s3.example.com",
    "MINIO_ACCESS_KEY": "worker",
    "MINIO_SECRET_KEY": "minio-secret-value",
}
CONTRACT = Path(__file__).resolve().parents[2].parent / "shared" / "contract.md"


def load(**variables: str) -> Settings:
    return Settings.load(GOOD | variables)


def refusal(**variables: str) -> str:
    with pytest.raises(SettingsError) as caught:
        load(**variables)
    return caught.value.message


def test_defaults_are_those_of_the_contract() -> None:
    settings = load()
    assert settings.queue.queue == "avatar_build"
    assert settings.queue.prefix == "bull"
    assert settings.queue.max_retries == 3
    assert settings.storage.bucket == "tryfitted"
    assert settings.worker.processing_timeout_s == 300
    assert settings.worker.port == 8477
    assert settings.pipeline.apose_arm_down_deg == 25
    assert settings.pipeline.silhouette_refine
    assert settings.models.smplx_dir == Path("/app/models/smplx")
    assert settings.sync.sources == ("smplx", "pixie", "sam3d", "sam2")


@pytest.mark.skipif(not CONTRACT.exists(), reason="../shared/contract.md is not here")
def test_every_variable_of_the_contract_is_known() -> None:
    text = CONTRACT.read_text()
    section = text[text.index("## Environment") : text.index("`REQUIRE_REAL_AVATAR=true`:")]
    named = set(re.findall(r"\b[A-Z][A-Z0-9]*(?:_[A-Z0-9]+)+\b", section))
    assert named - {doc.name for doc in describe()} == set()


def test_every_variable_is_documented_with_an_example_that_is_accepted() -> None:
    docs = describe()
    assert len({doc.name for doc in docs}) == len(docs)
    for doc in docs:
        assert doc.about.endswith("."), doc.name
        assert doc.example, doc.name
    Settings.load({doc.name: doc.example for doc in docs})


def test_all_that_is_missing_is_named_at_once_with_purpose_and_example() -> None:
    with pytest.raises(SettingsError) as caught:
        Settings.load({})
    message = caught.value.message
    for name in GOOD:
        assert f"{name}: is not set." in message
    assert "Example: REDIS_URL=redis://" in message


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("WORKER_DEVICE", "tpu"),
        ("AVATAR_DISPLAY_POSE", "lotus"),
        ("PROCESSING_TIMEOUT", "soon"),
        ("PROCESSING_TIMEOUT", "nan"),
        ("PROCESSING_TIMEOUT", "-1"),
        ("WORKER_PORT", "99999"),
        ("MAX_RETRIES", "0"),
        ("REQUIRE_REAL_AVATAR", "perhaps"),
        ("WORKER_GPUS", "first"),
        ("MODEL_SYNC_SOURCES", "smplx,tex"),
        ("MINIO_BUCKET", "Not A Bucket"),
        ("MINIO_ENDPOINT", "s3.example.com/tryfitted"),
        ("MINIO_ENDPOINT", "ftp://s3.example.com"),
        ("OUTPUT_BASE_URL", "https://cdn.example.com/files"),
        ("API_SIGNING_SECRET", "whsec_tooshort"),
        ("API_BASE_URL", "api.example.com"),
    ],
)
def test_a_wrong_value_names_its_variable(name: str, value: str) -> None:
    assert name in refusal(**{name: value})


def test_blank_values_count_as_unset() -> None:
    settings = load(MINIO_BUCKET="", WORKER_PORT="  ", API_TOKEN="", MINIO_SECURE=" ")
    assert settings.storage.bucket == "tryfitted"
    assert settings.worker.port == 8477
    assert settings.api.token is None
    assert "REDIS_URL: is not set" in refusal(REDIS_URL="  ")


def test_values_are_trimmed() -> None:
    settings = load(WORKER_PORT=" 9000\n", REQUIRE_REAL_AVATAR=" true ", MINIO_SECRET_KEY="abcd\n")
    assert settings.worker.port == 9000
    assert settings.pipeline.require_real_avatar
    assert settings.storage.secret_key.get_secret_value() == "abcd"


@pytest.mark.parametrize(
    "password", ["pa#ss", "pa@ss", "pa/ss", "pa?ss", "pa[ss", "pa]ss", "pa%ss", "pa ss"]
)
def test_an_unencoded_password_gets_a_named_error_that_does_not_show_it(password: str) -> None:
    message = refusal(REDIS_URL=f"redis://:{password}@redis.example.com:6379")
    assert "REDIS_URL" in message
    assert "percent-encoded" in message
    assert password not in message


@pytest.mark.parametrize(
    "url",
    [
        "redis://localhost",
        "rediss://user:p%40ss@redis.example.com:6380/2",
        "redis://:pa:ss@redis.example.com",
        "redis://:p@[::1]:6379/0",
    ],
)
def test_good_redis_urls_are_taken(url: str) -> None:
    assert load(REDIS_URL=url).queue.url.get_secret_value() == url


@pytest.mark.parametrize(
    "url", ["http://redis", "redis://", "redis://h:port", "redis://h/db", "redis.example.com:6379"]
)
def test_other_redis_urls_are_not(url: str) -> None:
    assert "REDIS_URL" in refusal(REDIS_URL=url)


@pytest.mark.parametrize(
    "url", ["http://localhost:3000", "http://127.0.0.1:3000", "http://[::1]:3000", "https://a.b"]
)
def test_http_is_fine_on_this_machine(url: str) -> None:
    assert load(API_BASE_URL=url).api.base_url == url


def test_http_to_another_host_must_be_allowed() -> None:
    message = refusal(API_BASE_URL="http://api.internal:3000")
    assert "API_ALLOW_HTTP" in message
    assert "API_BASE_URL" in message
    allowed = load(API_BASE_URL="http://api.internal:3000/", API_ALLOW_HTTP="true")
    assert allowed.api.base_url == "http://api.internal:3000"


@pytest.mark.parametrize(
    ("endpoint", "secure", "host", "public"),
    [
        ("s3.example.com", "", "s3.example.com", "http://s3.example.com"),
        ("s3.example.com", "true", "s3.example.com", "https://s3.example.com"),
        ("minio:9000", "false", "minio:9000", "http://minio:9000"),
        ("https://s3.example.com/", "false", "s3.example.com", "https://s3.example.com"),
        ("http://minio:9000", "true", "minio:9000", "http://minio:9000"),
    ],
)
def test_an_endpoint_with_a_scheme_is_accepted(
    endpoint: str, secure: str, host: str, public: str
) -> None:
    storage = load(MINIO_ENDPOINT=endpoint, MINIO_SECURE=secure).storage
    assert (storage.host, storage.public_base) == (host, public)


def test_secrets_are_in_no_repr() -> None:
    settings = load(API_TOKEN="the-api-token", MODEL_SYNC_MINIO_SECRET_KEY="sync-secret")
    shown = repr(settings) + str(settings)
    for secret in ("hunter2secret", "minio-secret-value", "the-api-token", "sync-secret"):
        assert secret not in shown
        assert secret in settings.secrets()


def test_the_engine_process_gets_no_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in GOOD.items():
        monkeypatch.setenv(name, value)
    environment = child_environment()
    assert "PATH" in environment
    assert not {"REDIS_URL", "MINIO_SECRET_KEY", "API_TOKEN"} & environment.keys()
    assert "minio-secret-value" not in str(environment)


def test_what_this_version_cannot_do_is_said() -> None:
    assert load().limitations() == []
    told = " ".join(
        load(
            SAM3DBODY_DETECTOR_PATH="/models/detector",
            PIXIE_USE_TEX="1",
        ).limitations()
    )
    for name in ("SAM3DBODY_DETECTOR_PATH", "PIXIE_USE_TEX"):
        assert name in told


def test_the_environment_is_read_in_one_module_of_the_worker() -> None:
    root = Path(__file__).resolve().parents[2] / "worker"
    readers = {
        path.relative_to(root).as_posix()
        for path in root.rglob("*.py")
        if re.search(r"os\.(environ|getenv)", path.read_text()) and "demo" not in path.parts
    }
    assert readers == {"settings/base.py"}
