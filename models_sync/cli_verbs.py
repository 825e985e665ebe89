"""`models-sync`: every verb and its options.  What a verb needs is imported inside it."""

from __future__ import annotations

import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from models_sync import cli_pull
from models_sync.cli_options import AsJson
from models_sync.cli_publisher import publisher
from models_sync.console import (
    as_object,
    print_json,
    print_table,
    report,
    shown,
    size_text,
    stoppable,
    time_text,
)
from models_sync.errors import SyncError, SyncSettingsError, WeightsIncomplete
from models_sync.settings import SyncSettings, VolumeSettings

if TYPE_CHECKING:
    from models_sync.manifest import Manifest
    from models_sync.plan import Plan

app = typer.Typer(
    help=(
        "Bring model weights from a private S3 bucket to a volume: verified, never half.\n\n"
        "Configured by MODEL_SYNC_* variables (docs/howto/models.md). On a terminal you see a "
        "bar; otherwise a line each ten seconds. Every error has a name, advice and an exit "
        "code: 0 done, 2 a variable or an option is wrong, 130 or 143 stopped by a signal (run "
        "again: it goes on); `models-sync exit-codes` lists the rest."
    ),
    no_args_is_help=True,
    pretty_exceptions_show_locals=False,
)


@app.command()
def plan(
    measure: Annotated[
        bool, typer.Option(help="Read from the bucket for a second to say how long it would take.")
    ] = True,
    as_json: AsJson = False,
) -> None:
    """Show what a pull would fetch, why, how much and how long. Writes nothing."""
    from models_sync.transfer import prepare

    settings = SyncSettings.load()
    planned = prepare(settings)
    how_long, sentence = _how_long(settings, planned) if measure else (None, "")
    if as_json:
        print_json(planned.as_dict() | {"howLong": how_long})
        return
    rows = [
        (item.remote.path, size_text(item.remote.size), f"{what}: {item.reason}")
        for what, items in (("fetch", planned.fetch), ("check", planned.check))
        for item in items
    ]
    print_table(("file", "size", "why"), rows)
    typer.echo(
        f"{size_text(planned.total_bytes)} in {len(planned.fetch)} files to fetch, "
        f"{len(planned.check)} files to check, {len(planned.present)} are here ({planned.trust})."
    )
    if sentence:
        typer.echo(sentence)


@app.command()
def pull(as_json: AsJson = False) -> None:
    """Fetch what is missing; go on where an earlier pull stopped. What is there is left alone."""
    cli_pull.pull(as_json=as_json)


@app.command()
def verify(
    full: Annotated[bool, typer.Option("--full", help="Hash every byte again.")] = False,
    bucket: Annotated[
        bool,
        typer.Option("--bucket", help="Hold the files against the bucket's manifest; hashes them."),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Say whether the files are what was published; without --full by size, time and record.

    Needs no bucket: the manifest that the last pull trusted lies beside the files.
    """
    from models_sync.verify import verify_full, verify_quick

    settings = VolumeSettings.load()
    if full or bucket:
        manifest = _manifest_of_bucket() if bucket else None
        with stoppable() as cancel, shown() as show:
            found = verify_full(settings, manifest, show, cancel)
        bad, good = list(found.bad), f"{len(found.good)} files hold what was published."
    else:
        bad, good = verify_quick(settings), "Every file is there, as it was when it was verified."
    error = WeightsIncomplete(f"below {settings.local_root}:" + "".join(f"\n  {x}" for x in bad))
    if as_json:
        found_bad = [{"path": file.path, "why": file.why, "size": file.size} for file in bad]
        print_json({"bad": found_bad} | (as_object(error) if bad else {}))
    elif not bad:
        typer.echo(good)
    if bad:
        report(error, as_json=False)
        raise typer.Exit(error.exit_code)


@app.command()
def prune(
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    dry_run: Annotated[bool, typer.Option(help="Only say what would go.")] = False,
    older_than_h: Annotated[
        float, typer.Option("--older-than", help="Hours before a partial file is given up.", min=0)
    ] = 24.0,
    as_json: AsJson = False,
) -> None:
    """Remove files of ours that are no longer published, and what given-up pulls left."""
    from models_sync.prune import plan_prune
    from models_sync.prune import prune as remove

    settings = VolumeSettings.load()
    found = plan_prune(settings, stale_after_s=older_than_h * 3600)
    has_work = bool(found.remove or found.forget) and not dry_run
    asks = bool(found.remove) and not (yes or dry_run)
    if asks and (as_json or not sys.stdin.isatty()):
        raise SyncSettingsError("nobody is there to be asked: pass --yes, or --dry-run")
    if as_json:
        if has_work:  # before it is told: one object, and nothing in it that is not so
            remove(settings, found)
        print_json(
            {
                "remove": [
                    {"path": str(file.path), "size": file.size, "why": file.why}
                    for file in found.remove
                ],
                "kept": list(found.kept),
                "totalBytes": found.total_bytes,
                "removed": yes and not dry_run,
            }
        )
        return
    rows = [(str(file.path), size_text(file.size), file.why) for file in found.remove]
    print_table(("file", "size", "why"), rows)
    for name in found.kept:
        typer.echo(f"kept, because somebody changed it: {name}")
    typer.echo(f"{size_text(found.total_bytes)} in {len(found.remove)} files can go.")
    if not has_work:
        return
    if asks:
        typer.confirm("Remove them?", abort=True)
    remove(settings, found)


@app.command()
def place(
    copy: Annotated[bool, typer.Option(help="Copy even where links work.")] = False,
    as_json: AsJson = False,
) -> None:
    """Put PIXIE's and SAM 2's files where their code looks, and convert SMPL-X's pickles.

    PIXIE's go to $PIXIE_MODEL_DIR/data, SAM 2's to $SAM3DBODY_SEGMENTOR_PATH/checkpoints.
    """
    from models_sync.place import place as bring

    done = bring(VolumeSettings.load(), copy=copy)
    if as_json:
        print_json(
            {
                "files": [
                    {"source": str(file.source), "target": str(file.target), "how": file.how}
                    for file in done.files
                ],
                "converted": [str(file.target) for file in done.converted],
                "skipped": list(done.skipped),
            }
        )
        return
    for made in done.converted:
        typer.echo(f"converted {made.source} to {made.target}")
    for file in done.files:
        typer.echo(f"{file.how:6} {file.target} ← {file.source}")
    for line in done.skipped:
        typer.echo(f"skipped: {line}")


@app.command("convert-smplx")
def convert_smplx(
    source: Annotated[Path, typer.Argument(help="SMPLX_*.pkl, or an .npz that holds objects.")],
    out: Annotated[Path | None, typer.Option(help="Where to; the same name with .npz.")] = None,
    force: Annotated[bool, typer.Option(help="Replace a file that is there.")] = False,
    as_json: AsJson = False,
) -> None:
    """Turn an official body model into an .npz of numbers alone; nothing in it is run."""
    from models_sync.convert import convert_smplx as convert

    done = convert(source, out, overwrite=force)
    if as_json:
        shapes = {name: list(shape) for name, shape in done.shapes.items()}
        print_json({"target": str(done.target), "arrays": shapes, "leftOut": list(done.left_out)})
        return
    rows = [(name, "×".join(map(str, shape))) for name, shape in done.shapes.items()]
    print_table(("array", "shape"), rows)
    typer.echo(f"{done.target} written; left out, no numbers: {', '.join(done.left_out) or '-'}")


@app.command("exit-codes")
def exit_codes() -> None:
    """List every exit code, what it means and what to do."""
    from models_sync.errors import exit_codes as known

    for code, kinds in known().items():
        for kind in kinds:
            meaning = (kind.__doc__ or "").splitlines()[0]
            typer.echo(f"{code:3}  {kind.__name__}: {meaning}\n     {kind.advice}")


def _how_long(settings: SyncSettings, planned: Plan) -> tuple[dict[str, object] | None, str]:
    """How long a pull would take, for a program and as a sentence."""
    from models_sync.bucket import Bucket
    from models_sync.estimate import estimate

    if not planned.total_bytes:
        return None, ""
    try:
        found = estimate(Bucket(settings), settings, planned)
    except SyncError as error:  # what is to be fetched is known all the same
        return as_object(error), f"How long is not known: {type(error).__name__}: {error.message}"
    rates = [f"{size_text(found.bytes_per_s)}/s"] if found.bytes_per_s else []
    rates += [f"{found.files_per_s:.0f} small files/s"] if found.files_per_s else []
    return found.as_dict(), (
        f"About {time_text(found.seconds)} by the network alone, at {' and '.join(rates)} over "
        f"{found.connections} connections, measured for {found.measured_s:.1f} s "
        f"({size_text(found.read_bytes)} read and thrown away). A volume that writes more slowly "
        "than that sets the time, and hashing the files to check is not counted."
    )


def _manifest_of_bucket() -> Manifest:
    """The bucket's manifest, trusted, and from now on kept beside the files."""
    from models_sync.bucket import Bucket
    from models_sync.errors import ManifestAbsent, VolumeUnwritable
    from models_sync.manifest import Manifest
    from models_sync.plan import read_wanted
    from models_sync.state import keep_manifest

    settings = SyncSettings.load()
    wanted = read_wanted(Bucket(settings), settings)
    if wanted.manifest is None:
        raise ManifestAbsent(f"{settings.minio_bucket} has no manifest: publish it with ours")
    with suppress(VolumeUnwritable):  # then only this run knows it
        keep_manifest(settings.local_root, wanted.manifest, wanted.signature)
    return Manifest.from_bytes(wanted.manifest)


app.add_typer(publisher)
