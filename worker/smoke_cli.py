"""`avatar-worker smoke`: the verb; `worker.smoke` asks the questions."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from worker.doctor import Finding


def smoke(
    url: Annotated[str, typer.Argument(help="Where it answers: https://POD-8477.proxy.runpod.net")],
    token: Annotated[
        str | None, typer.Option(envvar="WORKER_TOKEN", help="The worker's WORKER_TOKEN.")
    ] = None,
    commit: Annotated[
        str | None,
        typer.Option(envvar="EXPECTED_WORKER_GIT_COMMIT", help="Commit that should run."),
    ] = None,
    digest: Annotated[
        str | None,
        typer.Option(envvar="EXPECTED_IMAGE_DIGEST", help="Digest that should be declared."),
    ] = None,
    gpu: Annotated[bool, typer.Option("--gpu", help="It must compute on a GPU.")] = False,
    wait: Annotated[
        float, typer.Option(min=0, help="Seconds that it may take to become ready.")
    ] = 0.0,
    api: Annotated[
        str | None,
        typer.Option(
            envvar="CANARY_API_URL",
            help="Send the sample person through the API at this address: one real job.",
        ),
    ] = None,
    timeout: Annotated[float, typer.Option(min=1, help="Seconds for that job.")] = 300.0,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Probe a running worker: alive, ready, which commit, and on request one job through the API.

    Ends with 1 when something is not as it should be.
    """
    from rich.console import Console
    from rich.markup import escape

    from worker.smoke import Expected, canary, probe

    console = Console(highlight=False, quiet=as_json, soft_wrap=True)
    found = []

    def tell(finding: Finding) -> None:
        found.append(finding)
        mark = "[green]good[/]" if finding.good else "[red]bad [/]"
        console.print(f"{mark} {finding.what}: {escape(finding.detail)}")
        if finding.advice:
            console.print(f"     {escape(finding.advice)}")

    for finding in probe(url, token, Expected(commit, digest, gpu=gpu), wait_s=wait):
        tell(finding)
    if api and all(finding.good for finding in found):
        tell(canary(api, timeout))
    good = all(finding.good for finding in found)
    if as_json:
        typer.echo(json.dumps({"good": good, "findings": [asdict(one) for one in found]}))
    raise typer.Exit(0 if good else 1)
