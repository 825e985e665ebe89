// A producer as the API is one, driven by the tests: one JSON request a line on stdin, one JSON
// answer a line on stdout.  `node client.mjs bullmq5|bullmq5min|bullmq6 REDIS_URL PREFIX`
import { createInterface } from "node:readline";
import { Redis } from "ioredis";

const [, , flavour, redisUrl, prefix] = process.argv;
const { Queue, QueueEvents, Job } = await import(flavour);

const connection = () => new Redis(redisUrl, { maxRetriesPerRequest: null });
const queues = new Map();

async function open(name) {
  if (!queues.has(name)) {
    const queue = new Queue(name, { connection: connection(), prefix });
    const events = new QueueEvents(name, { connection: connection(), prefix });
    const seen = [];
    for (const event of ["active", "progress", "completed", "failed", "stalled", "waiting", "delayed"]) {
      events.on(event, (args) => seen.push({ event, ...args }));
    }
    await Promise.all([queue.waitUntilReady(), events.waitUntilReady()]);
    queues.set(name, { queue, events, seen });
  }
  return queues.get(name);
}

const operations = {
  async open() {},
  async add({ queue }, { data, opts }) {
    return (await queue.add("avatar_build", data, opts ?? undefined)).id;
  },
  async wait({ queue, events }, { id, ttlMs }) {
    const job = await Job.fromId(queue, id);
    try {
      return { returnvalue: await job.waitUntilFinished(events, ttlMs) };
    } catch (error) {
      return { error: error.message };
    }
  },
  async job({ queue }, { id }) {
    const job = await Job.fromId(queue, id);
    const { attemptsMade, attemptsStarted, failedReason, returnvalue, progress } = job;
    return { state: await job.getState(), attemptsMade, attemptsStarted, failedReason, returnvalue, progress };
  },
  async seen({ seen }, { id }) {
    return seen.filter((event) => event.jobId === id);
  },
  async pause({ queue }) {
    await queue.pause();
  },
  async resume({ queue }) {
    await queue.resume();
  },
  async counts({ queue }) {
    return queue.getJobCounts();
  },
  async workers({ queue }) {
    return queue.getWorkers();
  },
};

for await (const line of createInterface({ input: process.stdin })) {
  const { number, operation, queue, ...args } = JSON.parse(line);
  // Not awaited here: a wait must not hold up the requests after it.
  (async () => operations[operation](await open(queue), args))().then(
    (value) => console.log(JSON.stringify({ number, value: value ?? null })),
    (error) => console.log(JSON.stringify({ number, error: String(error.stack) })),
  );
}
process.exit(0);
