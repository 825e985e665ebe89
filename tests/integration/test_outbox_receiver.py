"""What the docs tell the API to do, done by Node with reports of the real client."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from worker.contract import JobStatus, StatusUpdate
from worker.reporter.client import ApiClient, ApiMisconfigured
from worker.settings import ApiSettings

PAGE = Path(__file__).resolve().parents[2] / "docs" / "howto" / "receive-reports.md"
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
UPDATE = StatusUpdate(status=JobStatus.FAILED, error="FEET_NOT_VISIBLE: zurück, bitte …")

RECEIVER = """
import { createServer } from "node:http";
import { whyNotTheWorkers } from "./check-report.mjs";
const options = JSON.parse(process.argv[2]);
const server = createServer((request, response) => {
  const chunks = [];
  request.on("data", (chunk) => chunks.push(chunk));
  request.on("end", () => {
    let body = Buffer.concat(chunks);
    if (options.bodyless) body = undefined; // as Fastify leaves it when there was none
    if (options.tamper) body = Buffer.from(body.toString().replace("FEET", "HEAD"));
    const headers = { ...request.headers };
    if (options.rotate) headers["webhook-signature"] = `v1,AAAA ${headers["webhook-signature"]}`;
    const why = whyNotTheWorkers(headers, body, options);
    console.log(JSON.stringify({ why }));
    response.writeHead(why ? 401 : 200, { "content-type": "application/json" });
    response.end(JSON.stringify({ success: !why, jobId: "j" }));
  });
});
server.listen(0, "127.0.0.1", () => console.log(JSON.stringify({ port: server.address().port })));
"""

# What the page's Prisma calls do, on two maps: enough to see in which order they leave what.
APPLY_TWICE = """
import { applyReport } from "./apply-report.mjs";
const jobs = { j: { status: "processing" } }, avatars = {};
const tx = {
  avatar: { upsert: async ({ where, create, update }) => {
    avatars[where.jobId] = avatars[where.jobId] ? { ...avatars[where.jobId], ...update } : create;
  } },
  avatarJob: { updateMany: async ({ where, data }) => {
    const job = jobs[where.id];
    if (job && (!where.status || job.status !== where.status.not)) Object.assign(job, data);
  } },
};
const prisma = { $transaction: (work) => work(tx) };
for (const report of JSON.parse(process.argv[2])) await applyReport(prisma, "j", report);
console.log(JSON.stringify({ job: jobs.j.status, avatar: avatars.j ?? null }));
"""


def code(name: str) -> str:
    """The page's block that begins with the name of a file."""
    (block,) = re.findall(
        rf"^```js\n// {re.escape(name)}\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL
    )
    return str(block)


async def node(folder: Path, script: str, argument: Any) -> asyncio.subprocess.Process:
    for name in ("check-report.mjs", "apply-report.mjs"):
        (folder / name).write_text(code(name))
    (folder / "main.mjs").write_text(script)
    return await asyncio.create_subprocess_exec(
        *("node", str(folder / "main.mjs"), json.dumps(argument)),
        stdout=asyncio.subprocess.PIPE,
    )


async def said(process: asyncio.subprocess.Process) -> Any:
    assert process.stdout is not None
    return json.loads(await process.stdout.readline())


@asynccontextmanager
async def receiver(folder: Path, **options: Any) -> AsyncIterator[tuple[str, Any]]:
    """An API that checks reports as the page says: its address, and its process."""
    process = await node(folder, RECEIVER, options)
    try:
        yield f"http://127.0.0.1:{(await said(process))['port']}", process
    finally:
        process.kill()
        await process.communicate()


async def report(url: str, **environment: str) -> None:
    client = ApiClient(ApiSettings.read({"API_BASE_URL": url} | environment))
    try:
        await client.patch("j", UPDATE, message_id="j:failed:1")
    finally:
        await client.aclose()


@pytest.mark.parametrize(
    ("checks", "sends"),
    [
        ({}, {}),
        ({"token": "the-token"}, {"API_TOKEN": "the-token"}),
        ({"secret": SECRET}, {"API_SIGNING_SECRET": SECRET}),
        (
            {"token": "the-token", "secret": SECRET, "rotate": True},
            {"API_TOKEN": "the-token", "API_SIGNING_SECRET": SECRET},
        ),
    ],
    ids=["nothing set", "token", "signature", "both, while the secret is replaced"],
)
async def test_a_report_of_the_worker_is_accepted(
    tmp_path: Path, checks: dict[str, Any], sends: dict[str, str]
) -> None:
    async with receiver(tmp_path, **checks) as (url, process):
        await report(url, **sends)
        assert await said(process) == {"why": None}


@pytest.mark.parametrize(
    ("checks", "sends", "why"),
    [
        ({"token": "the-token"}, {}, "wrong token"),
        ({"token": "the-token"}, {"API_TOKEN": "another"}, "wrong token"),
        ({"secret": SECRET}, {}, "not signed"),
        ({"secret": "whsec_AAAA"}, {"API_SIGNING_SECRET": SECRET}, "wrong signature"),
        ({"secret": SECRET, "bodyless": True}, {"API_SIGNING_SECRET": SECRET}, "wrong signature"),
        ({"secret": SECRET, "tamper": True}, {"API_SIGNING_SECRET": SECRET}, "wrong signature"),
        (
            {"secret": SECRET, "nowS": 4e9},
            {"API_SIGNING_SECRET": SECRET},
            "too old, or a clock is wrong",
        ),
    ],
)
async def test_whatever_is_not_the_workers_is_refused(
    tmp_path: Path, checks: dict[str, Any], sends: dict[str, str], why: str
) -> None:
    async with receiver(tmp_path, **checks) as (url, process):
        with pytest.raises(ApiMisconfigured, match="API_TOKEN"):
            await report(url, **sends)
        assert await said(process) == {"why": why}


def completion(glb_url: str) -> dict[str, Any]:
    result = {"userId": "u", "glbUrl": glb_url, "measurements": {}, "qualityReport": {}}
    return {"status": "completed", "progress": 100, "error": None, "result": result}


PROCESSING = {"status": "processing", "progress": 40, "error": None}
BARE = {"status": "completed", "progress": 100, "error": None}
FAILED = UPDATE.to_wire()


@pytest.mark.parametrize(
    ("reports", "status", "glb_url"),
    [
        ([completion("first"), completion("second")], "completed", "first"),
        ([completion("first"), PROCESSING, FAILED], "completed", "first"),
        ([completion("first"), BARE], "completed", "first"),
        ([FAILED, PROCESSING, completion("first")], "completed", "first"),
        ([PROCESSING, FAILED], "failed", None),
    ],
    ids=["twice", "then a late one", "then a bare one", "after a failure", "a failure"],
)
async def test_reports_in_any_order_leave_one_avatar_and_the_right_status(
    tmp_path: Path, reports: list[Any], status: str, glb_url: str | None
) -> None:
    process = await node(tmp_path, APPLY_TWICE, reports)
    left = json.loads((await process.communicate())[0])
    assert left["job"] == status
    assert (left["avatar"] or {}).get("glbUrl") == glb_url
