"""What a value of the environment may look like.

Each check says in its error what is wrong and never repeats the value, which may be a secret.
"""

from __future__ import annotations

import re
from base64 import b64decode
from ipaddress import ip_address
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, SecretStr
from pydantic_settings import NoDecode


def is_loopback(host: str) -> bool:
    """Whether `host` is this machine."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def _http_url(value: str) -> str:
    parts = urlsplit(value)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise ValueError("must be a URL that begins with https:// (or http://)")
    if parts.username or parts.password:
        raise ValueError("must not hold a user or password")
    return value.rstrip("/")


def _base_without_path(value: str) -> str:
    value = _http_url(value)
    parts = urlsplit(value)
    if parts.path or parts.query or parts.fragment:
        raise ValueError(
            "must end after the host: the API takes the object's key from the path of glbUrl"
        )
    return value


_ENCODE = (
    "the user or password holds a character that must be percent-encoded "
    "(@ is %40, : is %3A, / is %2F, ? is %3F, # is %23, [ is %5B, ] is %5D, % is %25)"
)


def _redis_url(secret: SecretStr) -> SecretStr:
    """Refuse what redis-py would misread, without ever repeating the value."""
    url = secret.get_secret_value()
    scheme, separator, rest = url.partition("://")
    if not separator or scheme not in {"redis", "rediss"}:
        raise ValueError("must begin with redis:// or rediss:// (TLS)")
    authority = re.split(r"[/?#]", rest, maxsplit=1)[0]
    credentials = authority.rpartition("@")[0]
    if (
        "@" in rest[len(authority) :]
        or re.search(r"[@\[\]\s]", credentials)
        or re.search(r"%(?![0-9A-Fa-f]{2})", credentials)
    ):
        raise ValueError(_ENCODE)
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        raise ValueError("the port must be a number") from None
    if not parts.hostname:
        raise ValueError("names no host")
    if not re.fullmatch(r"/?\d*", parts.path):
        raise ValueError("the path, when given, is the number of the database, such as /0")
    if parts.query or parts.fragment:
        raise ValueError("options after ? are not read; remove them")
    return secret


def _endpoint(value: str) -> str:
    parts = urlsplit(value if "://" in value else f"//{value}")
    try:
        good = bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        good = False
    if not good or parts.scheme not in {"", "http", "https"}:
        raise ValueError("must be host or host:port, optionally with http:// or https://")
    if parts.path.strip("/") or parts.query or parts.fragment or parts.username:
        raise ValueError("must be host or host:port only, without path, query or user")
    return value.rstrip("/")


def _comma_list(value: object) -> object:
    if isinstance(value, str):
        return tuple(part.strip() for part in value.split(",") if part.strip())
    return value


def _gpus(value: str) -> str:
    if value != "all" and not re.fullmatch(r"\d+(\s*,\s*\d+)*", value):
        raise ValueError("must be 'all' or GPU numbers such as 0,1")
    return value


def _signing_secret(secret: SecretStr) -> SecretStr:
    encoded = secret.get_secret_value().removeprefix("whsec_")
    try:
        good = len(b64decode(encoded, validate=True)) >= 16
    except ValueError:
        good = False
    if not good:
        raise ValueError("must be whsec_ followed by base64 of at least 16 bytes")
    return secret


HttpUrl = Annotated[str, AfterValidator(_http_url)]
BaseUrl = Annotated[str, AfterValidator(_base_without_path)]
RedisUrl = Annotated[SecretStr, AfterValidator(_redis_url)]
Endpoint = Annotated[str, AfterValidator(_endpoint)]
CommaList = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_comma_list)]
GpuList = Annotated[str, AfterValidator(_gpus)]
SigningSecret = Annotated[SecretStr, AfterValidator(_signing_secret)]
