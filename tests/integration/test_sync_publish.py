"""`models-sync publish` on both servers: what changed, the manifest last, never half."""

import dataclasses
import io
import json
import os
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from minio import Minio

from models_sync import signing
from models_sync.digests import UPLOAD_PART_BYTES
from models_sync.errors import (
    Interrupted,
    KeyFileUnusable,
    ManifestUntrusted,
    NothingThere,
    ObjectDamaged,
    PickleRefused,
    PublishConflict,
    SourceUnusable,
    TransferCut,
    UnsafeKey,
)
from models_sync.manifest import Manifest
from models_sync.publish import PublishOptions, PublishReport, publish
from models_sync.settings import PublishSettings
from models_sync.store import Store
from models_sync.transfer import pull
from tests.seaweed import ROOT_USER, SeaweedFS
from worker.demo.stack import EmbeddedStack
from worker.demo.users import Credentials

FILES = {
    "smplx/SMPLX_NEUTRAL.npz": os.urandom(300_000),
    "sam2/checkpoints/sam2.1_hiera_large.pt": os.urandom(2_000_000),
    "sam3d/assets/mhr_model.pt": b"",
    "pixie/a b+ü.txt": b"a name with a space",
}


@dataclass
class Bench:
    """A bucket of a test's own, and a folder to publish."""

    endpoint: str
    user: Credentials
    client: Minio
    bucket: str
    source: Path
    root: Path

    def settings(self, **changes: Any) -> PublishSettings:
        values: dict[str, Any] = {
            "minio_endpoint": self.endpoint,
            "minio_secure": False,
            "minio_bucket": self.bucket,
            "minio_access_key": self.user.access_key,
            "minio_secret_key": self.user.secret_key,
            "local_root": self.root,
        }
        return PublishSettings(**values | changes)

    def publish(self, *, settings: dict[str, Any] | None = None, **options: Any) -> PublishReport:
        return publish(self.settings(**settings or {}), self.source, PublishOptions(**options))

    def get(self, key: str) -> bytes:
        return bytes(self.client.get_object(bucket_name=self.bucket, object_name=key).read())

    def put(self, key: str, content: bytes) -> None:
        self.client.put_object(
            bucket_name=self.bucket, object_name=key, data=io.BytesIO(content), length=len(content)
        )

    def names(self) -> set[str]:
        listed = self.client.list_objects(bucket_name=self.bucket, recursive=True)
        # JuiceFS keeps the folders of removed objects, and lists them.
        return {str(item.object_name) for item in listed if not item.is_dir}

    def manifest(self) -> Manifest:
        return Manifest.from_bytes(self.get("manifest.json"))

    def write(self, name: str, content: bytes) -> Path:
        path = self.source / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        return path


_number = iter(range(1000))


def bench_on(endpoint: str, client: Minio, user: Credentials, folder: Path) -> Bench:
    bucket = f"publish-{next(_number)}"
    client.make_bucket(bucket_name=bucket)
    bench = Bench(endpoint, user, client, bucket, folder / "source", folder / "volume")
    for name, content in FILES.items():
        bench.write(name, content)
    return bench


@pytest.fixture
def bench(stack: EmbeddedStack, tmp_path: Path) -> Bench:
    return bench_on(stack.s3_endpoint, stack.minio(stack.root), stack.root, tmp_path)


@pytest.fixture(params=["juicefs", "seaweedfs"])
def either(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Bench]:
    if request.param == "juicefs":
        stack: EmbeddedStack = request.getfixturevalue("stack")
        yield bench_on(stack.s3_endpoint, stack.minio(stack.root), stack.root, tmp_path)
    else:
        seaweed: SeaweedFS = request.getfixturevalue("seaweed")
        yield bench_on(seaweed.endpoint, seaweed.minio(), ROOT_USER, tmp_path)


def test_a_folder_is_published_and_a_second_time_nothing_is_sent(either: Bench) -> None:
    report = either.publish()
    assert set(report.uploaded) == set(FILES)
    assert report.uploaded_bytes == sum(map(len, FILES.values()))
    assert "smplx/SMPLX_MALE.npz" in report.missing
    manifest = either.manifest().by_key()
    assert manifest["smplx/SMPLX_NEUTRAL.npz"].licence == "LicenseRef-SMPL-X"
    assert manifest["smplx/SMPLX_NEUTRAL.npz"].required_by == ("smplx",)
    assert manifest["sam2/checkpoints/sam2.1_hiera_large.pt"].licence == "Apache-2.0"

    before = either.get("manifest.json")
    again = either.publish()
    assert (again.uploaded, set(again.unchanged)) == ((), set(FILES))
    assert either.get("manifest.json") == before


def test_what_was_published_arrives_verified_on_a_volume(either: Bench, tmp_path: Path) -> None:
    pair = signing.keygen(tmp_path / "key")
    large = os.urandom(UPLOAD_PART_BYTES + 12_345)
    either.write("sam3d/model.ckpt", large)
    either.publish(settings={"signing_key": pair.private})
    assert either.publish(settings={"signing_key": pair.private}).uploaded == ()
    report = pull(either.settings(public_key=pair.public_key))
    assert (set(report.fetched), report.trust) == ({*FILES, "sam3d/model.ckpt"}, "signed manifest")
    assert (either.root / "sam3d/model.ckpt").read_bytes() == large
    for name, content in FILES.items():
        assert (either.root / name).read_bytes() == content


def test_only_what_changed_is_sent_and_readers_get_it(either: Bench) -> None:
    either.publish()
    pull(either.settings())
    either.write("pixie/a b+ü.txt", b"another version")
    assert either.publish().uploaded == ("pixie/a b+ü.txt",)
    assert pull(either.settings()).fetched == ["pixie/a b+ü.txt"]
    assert (either.root / "pixie/a b+ü.txt").read_bytes() == b"another version"


def test_what_is_no_longer_in_the_folder_stays_unless_it_is_mirrored(bench: Bench) -> None:
    bench.publish()
    (bench.source / "pixie/a b+ü.txt").unlink()
    assert bench.publish().kept == ("pixie/a b+ü.txt",)
    assert "pixie/a b+ü.txt" in bench.manifest().by_key()

    assert bench.publish(mirror=True, dry_run=True).removed == ("pixie/a b+ü.txt",)
    assert "pixie/a b+ü.txt" in bench.names()
    assert bench.publish(mirror=True).removed == ("pixie/a b+ü.txt",)
    assert bench.names() == {*FILES, "manifest.json"} - {"pixie/a b+ü.txt"}
    assert "pixie/a b+ü.txt" not in bench.manifest().by_key()


def test_a_mirror_of_one_source_leaves_the_others(bench: Bench) -> None:
    bench.publish()
    (bench.source / "pixie/a b+ü.txt").rename(bench.source / "pixie/b.txt")
    report = bench.publish(settings={"sources": "pixie"}, mirror=True)
    assert (report.uploaded, report.removed) == (("pixie/b.txt",), ("pixie/a b+ü.txt",))
    assert set(bench.manifest().by_key()) == {*FILES, "pixie/b.txt"} - {"pixie/a b+ü.txt"}


def test_a_dry_run_sends_nothing(bench: Bench) -> None:
    assert set(bench.publish(dry_run=True).uploaded) == set(FILES)
    assert bench.names() == set()


def test_a_bucket_that_was_filled_by_hand_is_taken_over_without_sending(bench: Bench) -> None:
    for name in ("smplx/SMPLX_NEUTRAL.npz", "pixie/a b+ü.txt"):
        bench.put(name, FILES[name])
    report = bench.publish()
    assert set(report.unchanged) == {"smplx/SMPLX_NEUTRAL.npz", "pixie/a b+ü.txt"}
    assert set(bench.manifest().by_key()) == set(FILES)


def test_an_object_that_someone_replaced_by_hand_is_sent_again(bench: Bench) -> None:
    bench.publish()
    name = "smplx/SMPLX_NEUTRAL.npz"
    bench.put(name, os.urandom(len(FILES[name])))
    assert bench.publish().uploaded == (name,)
    assert bench.get(name) == FILES[name]


def test_a_folder_in_the_bucket_holds_a_publication_of_its_own(bench: Bench) -> None:
    bench.publish(settings={"prefix": "v2"})
    assert "v2/manifest.json" in bench.names()
    assert all(key.startswith("v2/") for key in bench.names())
    assert set(pull(bench.settings(prefix="v2")).fetched) == set(FILES)


def test_licence_tags_can_be_given(bench: Bench) -> None:
    bench.publish(licences={"smplx": "LicenseRef-Meshcapade"})
    entry = bench.manifest().by_key()["smplx/SMPLX_NEUTRAL.npz"]
    assert entry.licence == "LicenseRef-Meshcapade"


# ---------------------------------------------------------------- signatures
def test_an_unsigned_manifest_is_not_signed_unseen(bench: Bench, tmp_path: Path) -> None:
    """What someone put into the bucket before there was a key must not become trusted."""
    bench.publish()
    pair = signing.keygen(tmp_path / "key")
    with pytest.raises(ManifestUntrusted, match="--replace"):
        bench.publish(settings={"signing_key": pair.private})
    bench.publish(settings={"signing_key": pair.private}, replace=True)
    assert signing.check(
        bench.get("manifest.json"), bench.get("manifest.json.sig"), pair.public_key
    )


def test_a_signed_manifest_is_not_replaced_by_one_without(bench: Bench, tmp_path: Path) -> None:
    pair = signing.keygen(tmp_path / "key")
    bench.publish(settings={"signing_key": pair.private})
    with pytest.raises(KeyFileUnusable, match="MODEL_SYNC_SIGNING_KEY is not set"):
        bench.publish()


def test_a_new_key_signs_what_the_old_key_had_signed(bench: Bench, tmp_path: Path) -> None:
    old, new = signing.keygen(tmp_path / "old"), signing.keygen(tmp_path / "new")
    bench.publish(settings={"signing_key": old.private})
    bench.publish(settings={"signing_key": new.private, "public_key": old.public_key})
    pulled = pull(bench.settings(public_key=new.public_key))
    assert pulled.trust == "signed manifest"


def test_a_publisher_that_dies_between_signature_and_manifest_leaves_a_signed_one(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Twice: the signature that is kept is that of the manifest which still lies there."""
    pair = signing.keygen(tmp_path / "key")
    signed = {"signing_key": pair.private}
    bench.publish(settings=signed)
    write = Store.write_small

    def dies(store: Store, key: str, data: bytes, content_type: str) -> None:
        if key == "manifest.json":
            raise TransferCut
        write(store, key, data, content_type)

    for attempt in range(2):
        bench.write("pixie/new.txt", f"attempt {attempt}".encode())
        with monkeypatch.context() as patch:
            patch.setattr(Store, "write_small", dies)
            with pytest.raises(TransferCut):
                bench.publish(settings=signed)
        raw, signatures = bench.get("manifest.json"), bench.get("manifest.json.sig")
        assert signing.check(raw, signatures, pair.public_key)


def test_of_two_publishers_at_once_the_manifest_that_stays_is_signed(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pair = signing.keygen(tmp_path / "key")
    signed = {"signing_key": pair.private}
    bench.publish(settings=signed)
    bench.write("pixie/new.txt", b"new")
    write = Store.write_small
    others = signing.sign(b"of the other", signing.load_signing_key(pair.private))

    def between(store: Store, key: str, data: bytes, content_type: str) -> None:
        if key == "manifest.json":
            bench.put("manifest.json.sig", others)
        write(store, key, data, content_type)

    monkeypatch.setattr(Store, "write_small", between)
    bench.publish(settings=signed)
    raw, signatures = bench.get("manifest.json"), bench.get("manifest.json.sig")
    assert signing.check(raw, signatures, pair.public_key)


def test_a_publisher_that_was_overtaken_says_so(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.publish()
    bench.write("pixie/new.txt", b"new")
    write = Store.write_small

    def after(store: Store, key: str, data: bytes, content_type: str) -> None:
        write(store, key, data, content_type)
        bench.put(key, Manifest(files=()).to_bytes())

    monkeypatch.setattr(Store, "write_small", after)
    with pytest.raises(PublishConflict, match="while we stored"):
        bench.publish()


def test_a_clock_that_goes_back_makes_no_older_manifest(bench: Bench) -> None:
    future = datetime.now(UTC) + timedelta(days=2)
    bench.put("manifest.json", Manifest(created=future, files=()).to_bytes())
    bench.publish()
    assert bench.manifest().created > future


def test_someone_who_can_write_to_the_bucket_cannot_pass_off_weights(
    bench: Bench, tmp_path: Path
) -> None:
    pair = signing.keygen(tmp_path / "key")
    bench.publish(settings={"signing_key": pair.private})
    forged = json.loads(bench.get("manifest.json"))
    forged["files"][0]["sha256"] = "0" * 64
    bench.put("manifest.json", json.dumps(forged).encode())
    with pytest.raises(ManifestUntrusted):
        pull(bench.settings(public_key=pair.public_key))
    assert not list(bench.root.rglob("*.npz"))


# ---------------------------------------------------------------- what goes wrong
def test_two_publishers_do_not_overwrite_each_other_unseen(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.publish()
    bench.write("pixie/new.txt", b"mine")
    upload = Store.upload

    def meanwhile(store: Store, *args: Any) -> Any:
        version = upload(store, *args)
        bench.put("manifest.json", Manifest(files=()).to_bytes())
        return version

    monkeypatch.setattr(Store, "upload", meanwhile)
    with pytest.raises(PublishConflict):
        bench.publish()
    assert bench.manifest().files == ()


def test_a_stopped_publication_leaves_the_old_manifest_and_sends_nothing_twice(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.publish(settings={"sources": "smplx"})
    before = bench.get("manifest.json")
    cancel, upload, one_by_one = threading.Event(), Store.upload, threading.Lock()

    def stop_after_one(*args: Any) -> Any:
        with one_by_one:
            version = upload(*args)
            cancel.set()
            return version

    monkeypatch.setattr(Store, "upload", stop_after_one)
    with pytest.raises(Interrupted):
        publish(bench.settings(), bench.source, None, None, cancel)
    assert bench.get("manifest.json") == before
    arrived = bench.names() - {"manifest.json"}
    assert set(FILES) > arrived > {"smplx/SMPLX_NEUTRAL.npz"}

    monkeypatch.undo()
    assert set(bench.publish().unchanged) >= arrived
    assert set(bench.manifest().by_key()) == set(FILES)


def test_a_file_that_changes_while_it_is_published_is_not_published(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    upload = Store.upload

    def meanwhile(store: Store, key: str, path: Path, *args: Any) -> Any:
        path.write_bytes(path.read_bytes()[:-1] + b"!")
        return upload(store, key, path, *args)

    monkeypatch.setattr(Store, "upload", meanwhile)
    with pytest.raises(SourceUnusable, match="changed while it was published"):
        bench.publish(settings={"sources": "smplx"})
    assert "manifest.json" not in bench.names()


def test_an_upload_that_is_stored_wrongly_is_found_out(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_object = Minio.put_object

    def damage(client: Minio, bucket: str, key: str, data: Any, length: int, **more: Any) -> Any:
        content = bytes(length) if key.endswith(".npz") else data.read(length)
        return put_object(client, bucket, key, io.BytesIO(content), length, **more)

    monkeypatch.setattr(Minio, "put_object", damage)
    with pytest.raises(ObjectDamaged, match=r"SMPLX_NEUTRAL\.npz"):
        bench.publish(settings={"sources": "smplx"})


def test_an_etag_that_is_no_md5_is_no_damage(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a server answers that encrypts."""
    put_object = Minio.put_object

    def encrypt(*args: Any, **more: Any) -> Any:
        return dataclasses.replace(put_object(*args, **more), etag="not-an-md5")

    monkeypatch.setattr(Minio, "put_object", encrypt)
    assert bench.publish().uploaded


def test_a_folder_that_holds_nothing_to_publish_is_named(bench: Bench, tmp_path: Path) -> None:
    bench.source = tmp_path / "empty"
    with pytest.raises(SourceUnusable, match="No such file"):
        bench.publish()
    bench.write("weights.bin", b"somewhere")
    with pytest.raises(SourceUnusable, match="holds no file below smplx/"):
        bench.publish()


@pytest.mark.parametrize("name", ["pixie/SMPLX_to_J14.pkl", "pixie/pixie_model.tar"])
def test_a_link_that_leads_nowhere_is_named(bench: Bench, name: str) -> None:
    path = bench.write(name, b"")
    path.unlink()
    path.symlink_to(bench.source / "gone")
    with pytest.raises(SourceUnusable) as refused:
        bench.publish()
    assert refused.value.message == f"{path}: No such file or directory"
    assert bench.names() == set()


def test_hidden_files_are_left_and_foreign_ones_are_told(bench: Bench) -> None:
    bench.write("README.txt", b"hello")
    bench.write("pixie/.DS_Store", b"x")
    bench.write(".git/config", b"x")
    bench.write("smplx/.models-sync-made.json", b"{}")
    assert bench.publish().ignored == ("README.txt",)
    assert bench.names() == {*FILES, "manifest.json"}


@pytest.mark.parametrize("name", ["pixie/a\nb", "pixie/A B+ü.txt", "pixie/a\\b"])
def test_a_name_that_no_volume_could_take_is_refused_before_anything_is_sent(
    bench: Bench, name: str
) -> None:
    bench.write(name, b"x")
    with pytest.raises(UnsafeKey):
        bench.publish()
    assert bench.names() == set()


def test_a_pickle_that_would_run_something_is_not_published(bench: Bench) -> None:
    bench.write("pixie/SMPLX_to_J14.pkl", b"cos\nsystem\n(S'true'\ntR.")
    with pytest.raises(PickleRefused, match=r"os\.system"):
        bench.publish()
    assert bench.names() == set()


def test_links_to_folders_are_followed_once(bench: Bench, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "model.ckpt").write_bytes(b"checkpoint")
    (elsewhere / "loop").symlink_to(elsewhere)
    (bench.source / "sam3d" / "linked").symlink_to(elsewhere)
    assert "sam3d/linked/model.ckpt" in bench.publish().uploaded
    assert bench.get("sam3d/linked/model.ckpt") == b"checkpoint"


def test_a_bucket_that_does_not_exist_is_made_and_a_dry_run_names_it(bench: Bench) -> None:
    fresh = {"minio_bucket": f"{bench.bucket}-fresh"}
    with pytest.raises(NothingThere, match="NoSuchBucket"):
        bench.publish(settings=fresh, dry_run=True)
    assert bench.publish(settings=fresh).made_bucket
    assert not bench.publish(settings=fresh).made_bucket
    assert pull(bench.settings(**fresh)).trust == "manifest, unsigned"
