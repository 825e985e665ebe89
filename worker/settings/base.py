"""What every group of variables is made of: how one is declared, read, and refused in words.

A field's alias is the variable's name, its description says what it is for and its example is
what the error message shows.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, Self

from pydantic import Field, ValidationError
from pydantic import model_validator as validates_model
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from worker.errors import SettingsError


def given_or_own(environ: Mapping[str, str] | None) -> Mapping[str, str]:
    """Return `environ`, or the process's own where none is given: it is read here alone."""
    return os.environ if environ is None else environ


def var(
    name: str, about: str, *, example: str, default: Any = PydanticUndefined, **limits: Any
) -> Any:
    """Declare a variable: name, what it is for, an example, what holds when unset, limits."""
    return Field(default, validation_alias=name, description=about, examples=[example], **limits)


class Group(BaseSettings):
    """Variables that one part of the worker is handed."""

    model_config = SettingsConfigDict(
        frozen=True, case_sensitive=True, extra="ignore", hide_input_in_errors=True
    )
    title: ClassVar[str]

    @classmethod
    def read(cls, environ: Mapping[str, str]) -> Self:
        """Read this group's variables from `environ`."""
        given: dict[str, Any] = {"environ": environ}
        return cls(**given)

    @classmethod
    def load(cls, environ: Mapping[str, str] | None = None) -> Self:
        """Read this group alone, for a tool that needs no other.

        Raises:
            SettingsError: as `Settings.load` raises it.
        """
        try:
            return cls.read(given_or_own(environ))
        except ValidationError as error:
            raise SettingsError(
                "\n".join(["The environment is wrong:", *explain(cls, error)])
            ) from None

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],  # noqa: ARG003 - called by these names
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - same
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - same
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Read the mapping that `read` was given, and nothing that it was not given."""
        if isinstance(env_settings, EnvSettingsSource):
            env_settings.env_vars = init_settings()["environ"]
        return (env_settings,)

    @validates_model(mode="before")
    @classmethod
    def _blank_is_unset(cls, values: dict[str, Any]) -> dict[str, Any]:
        stripped = {k: v.strip() if isinstance(v, str) else v for k, v in values.items()}
        return {name: value for name, value in stripped.items() if value != ""}


def alias(field: FieldInfo) -> str:
    """Return the variable's name."""
    return str(field.validation_alias)


def explain(group: type[Group], error: ValidationError) -> Iterator[str]:
    """Say what is wrong, a line each, without the value, which may be a secret."""
    by_alias = {alias(field): field for field in group.model_fields.values()}
    for detail in error.errors(include_url=False, include_input=False, include_context=False):
        name = str(detail["loc"][0]) if detail["loc"] else ""
        problem = detail["msg"].removeprefix("Value error, ")
        field = by_alias.get(name)
        if field is None:  # a rule over several variables names them itself
            yield f"  {problem}."
            continue
        problem = "is not set" if detail["type"] == "missing" else problem
        example = (field.examples or [""])[0]
        yield f"  {name}: {problem}. {field.description} Example: {name}={example}"
