"""What there is to set, for the reference page; and which of it is secret."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from worker.settings.base import Group, alias, given_or_own
from worker.settings.whole import GROUPS


@dataclass(frozen=True, slots=True)
class VariableDoc:
    """One line of the reference page."""

    name: str
    group: str
    about: str
    example: str
    default: str | None
    """None: it must be set, or nothing holds when it is not."""
    required: bool
    secret: bool


def describe() -> list[VariableDoc]:
    """Return every variable with its documentation, in the order of their groups."""
    return [doc for group in GROUPS.values() for doc in _documents(group)]


def child_environment() -> dict[str, str]:
    """Return our environment without the secrets, for the process that decodes users' bytes."""
    hidden = {doc.name for doc in describe() if doc.secret}
    return {name: value for name, value in given_or_own(None).items() if name not in hidden}


def _documents(group: type[Group]) -> Iterator[VariableDoc]:
    for field in group.model_fields.values():
        default = None if field.is_required() or field.default is None else field.default
        if isinstance(default, tuple):
            default = ",".join(default)
        elif isinstance(default, bool):
            default = str(default).lower()
        yield VariableDoc(
            name=alias(field),
            group=group.title,
            about=field.description or "",
            example=str((field.examples or [""])[0]),
            default=None if default is None else str(default),
            required=field.is_required(),
            secret="SecretStr" in str(field.annotation),
        )
