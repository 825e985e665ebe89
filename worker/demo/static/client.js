// The API as the page uses it.  Every failure is an Error whose message can be shown.

export class Refused extends Error {}

async function call(path, options) {
  let response;
  try {
    response = await fetch(path, options);
  } catch {
    throw new Error("The service does not answer. Is it still running?");
  }
  const body = await response.json().catch(() => ({}));
  if (!response.ok) throw new Refused(body.error ?? `The service answered ${response.status}.`);
  return body;
}

const send = (path, body) =>
  call(path, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify(body),
  });

/** Upload a photo straight to the storage; resolves to the URL that the job carries. */
export async function upload(file) {
  // A key of more than 255 bytes is refused by storages on file systems.
  const { uploadUrl, fileUrl } = await send("/v1/uploads/presign", { fileName: file.name.slice(-60) });
  const response = await fetch(uploadUrl, { method: "PUT", body: file }).catch(() => null);
  if (!response?.ok) throw new Error("The photo could not be sent. Please try again.");
  await response.text(); // read to the end, or the browser counts the upload as broken off
  return fileUrl;
}

export const createJob = (job) => send("/v1/avatar/jobs", job);
export const getJob = (id) => call(`/v1/avatar/jobs/${encodeURIComponent(id)}`);
export const getFiles = async (id) => (await call(`/v1/avatar/jobs/${encodeURIComponent(id)}/files`)).files;

/** Ask for the job until it is finished; `onChange` sees every answer. */
export async function follow(id, onChange, { everyMs = 400, signal } = {}) {
  let misses = 0;
  for (;;) {
    try {
      const job = await getJob(id);
      misses = 0;
      if (signal?.aborted) return null;
      onChange(job);
      if (job.status === "failed" || (job.status === "completed" && job.avatar)) return job;
    } catch (error) {
      if (error instanceof Refused || ++misses > 25) throw error;
    }
    await new Promise((done) => setTimeout(done, everyMs));
    if (signal?.aborted) return null;
  }
}

/** The sample person: two photos and what is true of them; null when there is none. */
export async function sampleTruth() {
  const response = await fetch("/sample/truth.json").catch(() => null);
  return response?.ok ? response.json() : null;
}

export async function samplePhoto(view) {
  const response = await fetch(`/sample/${view}.jpg`);
  if (!response.ok) throw new Error("The sample's photos are missing.");
  return new File([await response.blob()], `sample-${view}.jpg`, { type: "image/jpeg" });
}
