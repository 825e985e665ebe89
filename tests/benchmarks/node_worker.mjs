// The peer of `queue_worker.py`: Node's own Worker, driven by the same lines on stdin.
// `node node_worker.mjs bullmq5|bullmq5min|bullmq6 REDIS_URL PREFIX`, in tests/node.
import { createInterface } from "node:readline";
import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";

const [, , flavour, redisUrl, prefix] = process.argv;
// The packages lie where the contract tests have them: in the working directory, not beside us.
const require = createRequire(pathToFileURL(`${process.cwd()}/`));
const { Redis } = require("ioredis");
const { Worker } = require(flavour);

const workers = new Map();

const operations = {
  async open({ queue, concurrency, lockMs, stalledIntervalMs }) {
    const pickupMs = [];
    const handle = async (job) => {
      if (job.data.sentNs) {
        pickupMs.push(Number(process.hrtime.bigint() - BigInt(job.data.sentNs)) / 1e6);
      }
      return {};
    };
    const connection = new Redis(redisUrl, { maxRetriesPerRequest: null });
    const worker = new Worker(queue, handle, {
      connection,
      prefix,
      concurrency,
      autorun: false,
      lockDuration: lockMs,
      stalledInterval: stalledIntervalMs,
    });
    await worker.waitUntilReady();
    workers.set(queue, { worker, connection, pickupMs });
  },
  async run({ queue }) {
    workers.get(queue).worker.run();
  },
  async close({ queue }) {
    const { worker, connection, pickupMs } = workers.get(queue);
    await worker.close();
    connection.disconnect();
    workers.delete(queue);
    return pickupMs;
  },
};

for await (const line of createInterface({ input: process.stdin })) {
  const { operation, ...args } = JSON.parse(line);
  console.log(JSON.stringify({ value: (await operations[operation](args)) ?? null }));
}
process.exit(0);
