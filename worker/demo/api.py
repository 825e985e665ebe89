"""The reference API: the contract's endpoints, as the real API answers them.

It stands in for the Fastify service in the demo and in tests, traps included: a second
completion with a result is answered 500, and a late status overwrites an earlier one.  What it
adds is that progress is kept, and `GET /v1/avatar/jobs/:id/files`, from which the page takes
links that work without credentials.
"""

from __future__ import annotations

import asyncio
import secrets
import sqlite3
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Annotated, Any, Literal, TypeVar

from bullmq import Queue
from minio import Minio
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic.alias_generators import to_camel
from redis.exceptions import RedisError
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from worker.demo.store import Store, StoredAvatar, StoredJob, new_id

QUEUE = "avatar_build"
LINK_LIFETIME = timedelta(hours=1)
ENQUEUE_TIMEOUT_S = 2.0


@dataclass(frozen=True, slots=True)
class ApiConfig:
    """What the API needs to know."""

    redis_url: str = field(repr=False)
    storage: Minio
    """A client that may read and write `uploads/*` and read `avatars/*`."""
    bucket: str
    public_base_url: str
    """Before `/<bucket>/<key>` in photo URLs."""
    token: str | None = field(default=None, repr=False)
    """The bearer token that a status PATCH must bring, if any."""
    queue: str = QUEUE
    prefix: str = "bull"


BodyType = TypeVar("BodyType", bound=BaseModel)


class _Body(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, extra="ignore", allow_inf_nan=False)


class PresignBody(_Body):
    """`POST /v1/uploads/presign`."""

    file_name: Annotated[str, Field(min_length=1, max_length=200)]


class CreateJobBody(_Body):
    """`POST /v1/avatar/jobs`; also what goes on the queue, beside `jobId`."""

    front_photo_url: Annotated[str, Field(min_length=1)]
    side_photo_url: str | None = None
    height_cm: Annotated[float, Field(ge=100, le=250)]
    weight_kg: Annotated[float, Field(ge=20, le=300)] | None = None
    gender: Literal["female", "male", "neutral"] | None = None


class QualityReportBody(_Body):
    """`result.qualityReport`."""

    confidence: Literal["high", "medium", "low"]
    warnings: list[str] | None = None


class ResultBody(_Body):
    """`result` of a completion."""

    user_id: str
    glb_url: str
    measurements: dict[str, float]
    quality_report: QualityReportBody


class StatusBody(_Body):
    """`PATCH /v1/avatar/jobs/:id/status`."""

    status: Literal["processing", "completed", "failed"]
    progress: Annotated[int, Field(ge=0, le=100)] | None = None
    error: str | None = None
    result: ResultBody | None = None


def create_api(
    config: ApiConfig, store: Store, *, pages: list[BaseRoute] | None = None
) -> Starlette:
    """The API as an ASGI application.

    Args:
        config: Servers and credentials.
        store: The database; closed by the caller.
        pages: Further routes, tried after the API's own.
    """

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        app.state.queue = Queue(
            config.queue, {"connection": config.redis_url, "prefix": config.prefix}
        )
        try:
            yield
        finally:
            await app.state.queue.close()

    handlers = _Handlers(config, store)
    return Starlette(
        routes=[
            Route("/v1/uploads/presign", handlers.presign, methods=["POST"]),
            Route("/v1/avatar/jobs", handlers.create_job, methods=["POST"]),
            Route("/v1/avatar/jobs/{job_id}", handlers.get_job),
            Route("/v1/avatar/jobs/{job_id}/files", handlers.get_files),
            Route("/v1/avatar/jobs/{job_id}/status", handlers.set_status, methods=["PATCH"]),
            Route("/v1/avatar/current", handlers.get_current),
            *(pages or []),
        ],
        lifespan=lifespan,
        exception_handlers={HTTPException: _problem},
    )


class _Handlers:
    """One method an endpoint, in the order of a job's life."""

    def __init__(self, config: ApiConfig, store: Store) -> None:
        self._config = config
        self._store = store

    async def presign(self, request: Request) -> Response:
        """Where to PUT a photo, and the URL that it then has.

        The URL is the raw key joined to the base without encoding, as the real API does it, so
        that a file name with `#`, `?` or `%` in it is met here and not first in production.
        """
        body = await _parse(request, PresignBody)
        key = f"uploads/{uuid.uuid4()}-{body.file_name}"
        upload_url = self._config.storage.presigned_put_object(
            bucket_name=self._config.bucket, object_name=key, expires=LINK_LIFETIME
        )
        file_url = f"{self._config.public_base_url}/{self._config.bucket}/{key}"
        return JSONResponse({"uploadUrl": upload_url, "fileUrl": file_url, "key": key})

    async def create_job(self, request: Request) -> Response:
        """Keep a job and put it on the queue: name `avatar_build`, no options."""
        body = await _parse(request, CreateJobBody)
        data = {"jobId": new_id(), **body.model_dump(by_alias=True, exclude_none=True)}
        await run_in_threadpool(self._store.create_job, data["jobId"], data)
        queue: Queue = request.app.state.queue
        try:
            async with asyncio.timeout(ENQUEUE_TIMEOUT_S):
                await queue.add(self._config.queue, data, {})
        except (RedisError, TimeoutError) as error:
            self._store.set_status(
                data["jobId"], "failed", progress=None, error="The queue did not answer."
            )
            raise HTTPException(503, "The queue did not answer. Please try again.") from error
        return JSONResponse({"jobId": data["jobId"], "status": "queued"}, status_code=201)

    async def get_job(self, request: Request) -> Response:
        """Where a job stands, with its avatar once there is one."""
        return JSONResponse(_job_json(await self._job(request)))

    async def get_files(self, request: Request) -> Response:
        """Links to everything that the worker published for a job, by file name."""
        job = await self._job(request)
        prefix = f"avatars/{job.id}/"
        links = await run_in_threadpool(self._links, prefix)
        return JSONResponse({"files": links})

    def _links(self, prefix: str) -> dict[str, str]:
        storage, bucket = self._config.storage, self._config.bucket
        found = storage.list_objects(bucket_name=bucket, prefix=prefix, recursive=True)
        keys = [str(item.object_name) for item in found]
        return {
            key.removeprefix(prefix): storage.presigned_get_object(
                bucket_name=bucket, object_name=key, expires=LINK_LIFETIME
            )
            for key in keys
        }

    async def set_status(self, request: Request) -> Response:
        """What the worker reports.  The avatar is created first, then the status is written.

        A second completion with a result runs into the unique `jobId` and is answered 500.
        """
        self._authorize(request)
        job = await self._job(request)
        body = await _parse(request, StatusBody)
        if body.status == "completed" and body.result is not None:
            try:
                await run_in_threadpool(
                    self._store.create_avatar,
                    job.id,
                    user_id=body.result.user_id,
                    glb_url=body.result.glb_url,
                    measurements=body.result.measurements,
                    quality_report=body.result.quality_report.model_dump(),
                )
            except sqlite3.IntegrityError as error:
                raise HTTPException(
                    500, "Unique constraint failed on the fields: (`jobId`)"
                ) from error
        await run_in_threadpool(
            self._store.set_status,
            job.id,
            body.status,
            progress=body.progress,
            error=body.error,
        )
        return JSONResponse({"success": True, "jobId": job.id})

    async def get_current(self, request: Request) -> Response:  # noqa: ARG002  # a handler's form
        """The avatar that was made last; 404 before the first."""
        avatar = await run_in_threadpool(self._store.current_avatar)
        if avatar is None:
            raise HTTPException(404, "There is no avatar yet.")
        return JSONResponse({"jobId": avatar.job_id, **_avatar_json(avatar)})

    async def _job(self, request: Request) -> StoredJob:
        job = await run_in_threadpool(self._store.job, request.path_params["job_id"])
        if job is None:
            raise HTTPException(404, "There is no such job.")
        return job

    def _authorize(self, request: Request) -> None:
        token = self._config.token
        if token is None:
            return
        scheme, _, given = request.headers.get("authorization", "").partition(" ")
        right = secrets.compare_digest(given.encode(), token.encode())
        if scheme.lower() != "bearer" or not right:
            raise HTTPException(401, "A bearer token is needed.")


def _job_json(job: StoredJob) -> dict[str, Any]:
    """The contract's form: what is not there is left out."""
    optional = {
        "progress": job.progress,
        "error": job.error,
        "avatar": _avatar_json(job.avatar) if job.avatar else None,
        "completedAt": job.completed_at,
    }
    return {
        "jobId": job.id,
        "status": job.status,
        **{name: value for name, value in optional.items() if value is not None},
        "createdAt": job.created_at,
    }


def _avatar_json(avatar: StoredAvatar) -> dict[str, Any]:
    return {
        "id": avatar.id,
        "glbUrl": avatar.glb_url,
        "measurements": avatar.measurements,
        "qualityReport": avatar.quality_report,
        "createdAt": avatar.created_at,
    }


async def _parse(request: Request, model: type[BodyType]) -> BodyType:
    """The request's JSON body, or 400 naming the field that is wrong."""
    try:
        return model.model_validate_json(await request.body())
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "body"
        raise HTTPException(400, f"{where}: {first['msg']}") from error


async def _problem(request: Request, error: Exception) -> Response:  # noqa: ARG001  # a handler's form
    status, detail = 500, "Something went wrong."
    if isinstance(error, HTTPException):
        status, detail = error.status_code, error.detail
    return JSONResponse({"statusCode": status, "error": detail}, status_code=status)
