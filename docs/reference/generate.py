"""Write the pages of docs/reference that come from the code: errors.md and settings.md.

`make docs` runs it; a test compares the pages with what it would write.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby
from pathlib import Path

from worker import errors
from worker.settings import describe

HERE = Path(__file__).parent
FAMILIES = (
    (errors.InputError, "The shopper can fix it. Never retried; `advice` is shown in the app."),
    (errors.ModelError, "Weights are missing or wrong. The worker goes not ready."),
    (errors.EngineError, "The computation broke. Retried, except where the table says no."),
    (errors.DependencyError, "Another service did not answer. Retried with backoff."),
)


def _family(base: type[errors.AvatarError]) -> Iterator[type[errors.AvatarError]]:
    yield base
    for child in base.__subclasses__():
        if child.__module__ == errors.__name__:  # modules have finer kinds of their own
            yield from _family(child)


def errors_page() -> str:
    """The page of error codes."""
    lines = [
        "# Error codes",
        "",
        "Codes are stable. `failedReason` in BullMQ and `error` in the API read `CODE: advice`.",
    ]
    for base, what in FAMILIES:
        lines += ["", f"## {base.__name__}", "", what, ""]
        lines += ["| code | meaning | advice | retried |", "|---|---|---|---|"]
        for kind in _family(base):
            meaning = (kind.__doc__ or "").strip().splitlines()[0]
            retried = "yes" if kind.retryable else "no"
            lines.append(f"| `{kind.code}` | {meaning} | {kind.default_advice} | {retried} |")
    return "\n".join(lines) + "\n"


def settings_page() -> str:
    """The page of environment variables."""
    lines = [
        "# Environment variables",
        "",
        "Empty means unset. Names are fixed; a wrong value stops the worker before it takes a",
        "job, with the variable's name, what it is for and an example.",
    ]
    for group, variables in groupby(describe(), key=lambda variable: variable.group):
        lines += ["", f"## {group}", ""]
        lines += ["| variable | default | what it is for | example |", "|---|---|---|---|"]
        for variable in variables:
            default = "" if variable.default is None else f"`{variable.default}`"
            cells = (
                f"`{variable.name}`" + (" (secret)" if variable.secret else ""),
                "**required**" if variable.required else default,
                variable.about,
                f"`{variable.example}`",
            )
            lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines) + "\n"


PAGES = {"errors.md": errors_page, "settings.md": settings_page}

if __name__ == "__main__":
    for name, page in PAGES.items():
        (HERE / name).write_text(page())
