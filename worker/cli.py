"""`avatar-worker`: every verb of the worker.  Heavy imports happen inside the verbs."""

from __future__ import annotations

import typer

app = typer.Typer(
    name="avatar-worker",
    help="Photos in, a measured 3D body out: a BullMQ worker.",
    no_args_is_help=True,
    pretty_exceptions_show_locals=False,
)


@app.callback()
def root() -> None:
    """Photos in, a measured 3D body out: a BullMQ worker."""


def main() -> None:
    """Run the command line."""
    app()
