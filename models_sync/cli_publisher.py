"""`models-sync`: the verbs of whoever fills the bucket and lets others read it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from models_sync.cli_options import AsJson
from models_sync.console import print_json, shown, size_text, stoppable
from models_sync.errors import SyncSettingsError
from models_sync.settings import PublishSettings, SyncSettings, VolumeSettings

publisher = typer.Typer()


@publisher.command()
def publish(
    source: Annotated[
        Path, typer.Argument(help="Folder with smplx/, pixie/, sam3d/ and sam2/checkpoints/.")
    ],
    dry_run: Annotated[bool, typer.Option(help="Only say what would be sent.")] = False,
    mirror: Annotated[
        bool, typer.Option(help="Remove from the bucket what the folder no longer has.")
    ] = False,
    replace: Annotated[
        bool, typer.Option(help="Start a new manifest from this folder alone.")
    ] = False,
    licence: Annotated[
        list[str] | None,
        typer.Option(metavar="SOURCE=TAG", help="Licence tag in the manifest, an SPDX id."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Send what changed in a folder to the bucket, and its manifest last.

    Needs a key that may write. The manifest is signed when MODEL_SYNC_SIGNING_KEY names a key.
    """
    from models_sync.publish import PublishOptions
    from models_sync.publish import publish as bring

    options = PublishOptions(_licences(licence or []), mirror, replace, dry_run)
    settings = PublishSettings.load()
    with stoppable() as cancel, shown() as show:
        done = bring(settings, source, options, show, cancel)
    if as_json:
        print_json(done.as_dict())
        return
    if done.made_bucket:
        typer.echo(f"made the bucket {settings.minio_bucket}")
    for name in done.uploaded:
        typer.echo(f"{'would send' if dry_run else 'sent'} {name}")
    for name in done.removed:
        typer.echo(f"{'would remove' if dry_run else 'removed'} {name}")
    typer.echo(
        f"{len(done.uploaded)} files ({size_text(done.uploaded_bytes)}) sent, "
        f"{len(done.unchanged)} unchanged, {len(done.kept)} only in the bucket; the manifest is "
        f"{'signed' if done.signed else 'not signed'}."
    )
    for line in (
        ("no part of a source, left out: ", done.ignored),
        ("its code cannot start without: ", done.missing),
    ):
        if line[1]:
            typer.echo(line[0] + ", ".join(line[1]), err=True)


@publisher.command()
def keygen(
    path: Annotated[Path, typer.Argument(help="Where the private key goes.")] = Path(
        "models-sync.key"
    ),
) -> None:
    """Make a key that signs manifests, and say what readers need to know of it."""
    from models_sync.signing import keygen as make

    pair = make(path)
    typer.echo(f"# {pair.private}: keep it; {pair.public}: the same key for openssl", err=True)
    # Comments on lines of their own: in an env file they would become part of the value.
    typer.echo(f"# where you publish\nMODEL_SYNC_SIGNING_KEY={pair.private}")
    typer.echo(f"# on every reader\nMODEL_SYNC_PUBLIC_KEY={pair.public_key}")


@publisher.command()
def policy(
    seaweedfs: Annotated[
        str | None,
        typer.Option(metavar="USER", help="Print what SeaweedFS' s3.json needs for this user."),
    ] = None,
    bucket: Annotated[
        str, typer.Option(envvar="MODEL_SYNC_MINIO_BUCKET", help="The private bucket.")
    ] = "tryfitted-models",
) -> None:
    """Print the policy of a read-only user, as S3 servers take it."""
    from models_sync.access import reader_policy, seaweedfs_identity

    made = reader_policy(VolumeSettings.load(), bucket)
    typer.echo(json.dumps(seaweedfs_identity(made, seaweedfs) if seaweedfs else made, indent=1))


@publisher.command("make-reader")
def make_reader(
    user: Annotated[str, typer.Option(help="The user's access key.")] = "models-reader",
) -> None:
    """Make the bucket, the policy and a read-only user, on a server with MinIO's admin API.

    Run it with the keys of the server's root user. Again, it replaces the user's secret.
    """
    from models_sync.access import make_reader as make

    reader = make(SyncSettings.load(), user)
    typer.echo(f"MODEL_SYNC_MINIO_ACCESS_KEY={reader.access_key}")
    typer.echo(f"MODEL_SYNC_MINIO_SECRET_KEY={reader.secret_key}")


def _licences(given: list[str]) -> dict[str, str]:
    from models_sync.catalog import CATALOG

    pairs = dict(text.partition("=")[::2] for text in given)
    for source, tag in pairs.items():
        if source not in CATALOG or not tag:
            raise SyncSettingsError(
                f"--licence {source}={tag}: must be SOURCE=TAG, SOURCE one of {', '.join(CATALOG)}"
            )
    return pairs
