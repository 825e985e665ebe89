import shutil
import stat
import subprocess
from pathlib import Path

import pytest

from models_sync import signing
from models_sync.errors import KeyFileUnusable, ManifestUntrusted, SyncSettingsError

MANIFEST = b'{"version": 1}\n'


@pytest.fixture
def pair(tmp_path: Path) -> signing.KeyPair:
    return signing.keygen(tmp_path / "models-sync.key")


def signed(pair: signing.KeyPair, manifest: bytes = MANIFEST, before: bytes | None = None) -> bytes:
    return signing.sign(manifest, signing.load_signing_key(pair.private), before)


def test_what_the_key_signed_is_trusted(pair: signing.KeyPair) -> None:
    assert signing.check(MANIFEST, signed(pair), pair.public_key)


def test_without_a_configured_key_nothing_is_checked_and_it_says_so(pair: signing.KeyPair) -> None:
    assert signing.check(MANIFEST, None, None) is False
    assert signing.check(MANIFEST, b"rubbish", "") is False


def test_a_changed_byte_a_foreign_key_and_a_missing_signature_are_refused(
    pair: signing.KeyPair, tmp_path: Path
) -> None:
    foreign = signing.keygen(tmp_path / "foreign.key")
    for manifest, signatures in (
        (MANIFEST + b" ", signed(pair)),
        (MANIFEST, signed(foreign)),
        (MANIFEST, None),
        (MANIFEST, b""),
        (MANIFEST, signed(pair)[:-1]),
        (MANIFEST, bytes(64)),
    ):
        with pytest.raises(ManifestUntrusted):
            signing.check(manifest, signatures, pair.public_key)


def test_a_reader_between_two_publications_finds_the_signature_it_needs(
    pair: signing.KeyPair,
) -> None:
    first = signed(pair)
    second = signed(pair, b"the next manifest", before=first)
    third = signed(pair, b"the one after", before=second)
    assert signing.check(MANIFEST, second, pair.public_key)
    assert signing.check(b"the next manifest", second, pair.public_key)
    with pytest.raises(ManifestUntrusted):
        signing.check(MANIFEST, third, pair.public_key)


def test_while_a_key_is_replaced_readers_accept_both(pair: signing.KeyPair, tmp_path: Path) -> None:
    new = signing.keygen(tmp_path / "new.key")
    both = f"{pair.public_key}, {new.public_key}"
    assert signing.check(MANIFEST, signed(pair), both)
    assert signing.check(MANIFEST, signed(new), both)


@pytest.mark.parametrize("text", ["abc", "AAAA", "not base64!", "a" * 44 + "," + "b"])
def test_a_public_key_that_is_none_is_a_settings_error(text: str) -> None:
    with pytest.raises(SyncSettingsError, match="MODEL_SYNC_PUBLIC_KEY"):
        signing.check(MANIFEST, bytes(64), text)


def test_the_private_key_is_for_its_owner_alone_and_never_overwritten(
    pair: signing.KeyPair,
) -> None:
    assert stat.S_IMODE(pair.private.stat().st_mode) == 0o600
    kept = pair.private.read_bytes()
    with pytest.raises(KeyFileUnusable, match="exists already"):
        signing.keygen(pair.private)
    assert pair.private.read_bytes() == kept


def test_a_file_that_is_no_key_is_named_and_not_quoted(tmp_path: Path) -> None:
    path = tmp_path / "no.key"
    with pytest.raises(KeyFileUnusable, match=r"no\.key"):
        signing.load_signing_key(path)
    path.write_text("-----BEGIN PRIVATE KEY-----\nhunter2\n-----END PRIVATE KEY-----\n")
    with pytest.raises(KeyFileUnusable) as caught:
        signing.load_signing_key(path)
    assert "hunter2" not in str(caught.value)


def test_openssl_agrees_on_keys_and_signature(pair: signing.KeyPair, tmp_path: Path) -> None:
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("openssl is not installed")
    (tmp_path / "manifest.json").write_bytes(MANIFEST)
    (tmp_path / "one.sig").write_bytes(signed(pair)[:64])

    def verify(content: bytes) -> bool:
        (tmp_path / "manifest.json").write_bytes(content)
        command = [openssl, "pkeyutl", "-verify", "-pubin", "-inkey", str(pair.public), "-rawin"]
        command += ["-in", "manifest.json", "-sigfile", "one.sig"]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, check=False)
        return done.returncode == 0

    assert verify(MANIFEST)
    assert not verify(MANIFEST + b" ")
