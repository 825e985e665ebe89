// Bull Board on one queue: `node board.mjs REDIS_URL PREFIX QUEUE` prints its address.
import { createBullBoard } from "@bull-board/api";
import { BullMQAdapter } from "@bull-board/api/bullMQAdapter";
import { ExpressAdapter } from "@bull-board/express";
import { Queue } from "bullmq";
import express from "express";
import { Redis } from "ioredis";

const [, , redisUrl, prefix, name] = process.argv;
const connection = new Redis(redisUrl, { maxRetriesPerRequest: null });
const serverAdapter = new ExpressAdapter();
createBullBoard({ queues: [new BullMQAdapter(new Queue(name, { connection, prefix }))], serverAdapter });
const server = express()
  .use("/", serverAdapter.getRouter())
  .listen(0, "127.0.0.1", () => console.log(`http://127.0.0.1:${server.address().port}/`));
