// A producer as the API is one, driven by the tests: one JSON request a line on stdin, one JSON
// answer a line on stdout.  `node client.mjs bullmq5|bullmq5min|bullmq6 REDIS_URL PREFIX`
import { createInterface } from "node:readline";
import { Redis } from "ioredis";

const [, , flavour, redisUrl, prefix] = process.argv;
const { FlowProducer, Job, Queue, QueueEvents, Worker } = await import(flavour);

const connection = () => new Redis(redisUrl, { maxRetriesPerRequest: null });
const queues = new Map();
const workers = [];

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
  // Any method of the queue, or of one of its jobs; what has no JSON form answers null.
  async queue({ queue }, { method, args = [] }) {
    return plain(await queue[method](...args));
  },
  async onJob({ queue }, { id, method, args = [] }) {
    const job = await Job.fromId(queue, id);
    return plain(await job[method](...args));
  },
  async field({ queue }, { id, name }) {
    return (await Job.fromId(queue, id))[name];
  },
  // A family of jobs; answers the ids as the tree has them.
  async flow(_opened, { tree }) {
    const producer = new FlowProducer({ connection: connection(), prefix });
    const ids = ({ job, children = [] }) => ({ id: job.id, children: children.map(ids) });
    try {
      return ids(await producer.add(tree));
    } finally {
      await producer.close();
    }
  },
  // Code of the documentation, as its reader runs it.
  async snippet(_opened, { code, jobId }) {
    const AsyncFunction = Object.getPrototypeOf(async () => {}).constructor;
    const redis = connection();
    try {
      await new AsyncFunction("connection", "jobId", code)(redis, jobId);
    } finally {
      redis.disconnect();
    }
  },
  // A Node worker, for parents of flows and as the measure of what a worker does.
  async work({ queue }) {
    workers.push(new Worker(queue.name, (job) => job.getChildrenValues(), { connection: connection(), prefix }));
    await workers.at(-1).waitUntilReady();
  },
  async rest() {
    await Promise.all(workers.splice(0).map((worker) => worker.close()));
  },
};

function plain(value) {
  return value instanceof Object && !Array.isArray(value) && "client" in value ? null : (value ?? null);
}

for await (const line of createInterface({ input: process.stdin })) {
  const { number, operation, queue, ...args } = JSON.parse(line);
  // Not awaited here: a wait must not hold up the requests after it.
  (async () => operations[operation](await open(queue), args))().then(
    (value) => console.log(JSON.stringify({ number, value: value ?? null })),
    (error) => console.log(JSON.stringify({ number, error: String(error.stack) })),
  );
}
process.exit(0);
