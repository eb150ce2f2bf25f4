// BullMQ as a rival: delayed jobs in Redis, undici for the calls, a PostgreSQL row per run.
//
//   node worker.mjs create   reads [{"name", "due_ms"}, …] from standard input, stores the jobs
//   node worker.mjs work     runs them until SIGTERM
//
// Settings come from the environment: REDIS_SOCKET, PGHOST, PGUSER, PGDATABASE, TARGET (a
// run's URL without its name), CONCURRENCY (jobs at once), ROW_CONNECTIONS (to PostgreSQL).

import { text } from "node:stream/consumers";
import { Queue, Worker } from "bullmq";
import { Redis } from "ioredis";
import pg from "pg";
import { Pool } from "undici";

const QUEUE = "runs";
const CHUNK = 1000;
const INSERT = {
  name: "insert-run",
  text: `INSERT INTO runs (name, scheduled_ms, started_ms, finished_ms, status)
         VALUES ($1, $2, $3, $4, $5)`,
};

function connect() {
  return new Redis({ path: process.env.REDIS_SOCKET, maxRetriesPerRequest: null });
}

async function create() {
  const jobs = JSON.parse(await text(process.stdin));
  const queue = new Queue(QUEUE, { connection: connect() });
  await queue.waitUntilReady();
  const began = performance.now();
  for (let start = 0; start < jobs.length; start += CHUNK) {
    await queue.addBulk(
      jobs.slice(start, start + CHUNK).map(({ name, due_ms }) => ({
        name: "call",
        data: { name, due_ms },
        opts: { delay: due_ms - Date.now(), removeOnComplete: true, removeOnFail: true },
      })),
    );
  }
  console.log(JSON.stringify({ seconds: (performance.now() - began) / 1000 }));
  await queue.close();
  process.exit(0);
}

async function work() {
  const concurrency = Number(process.env.CONCURRENCY);
  const target = new URL(process.env.TARGET);
  const http = new Pool(target.origin, { connections: concurrency });
  const rows = new pg.Pool({ max: Number(process.env.ROW_CONNECTIONS) });

  async function call({ data }) {
    const started = Date.now();
    const { statusCode, body } = await http.request({
      path: target.pathname + data.name,
      method: "POST",
      headers: { "content-type": "application/json", "webhook-id": data.name },
      body: JSON.stringify({ name: data.name }),
    });
    await body.dump();
    await rows.query({
      ...INSERT,
      values: [data.name, data.due_ms, started, Date.now(), statusCode],
    });
  }

  const worker = new Worker(QUEUE, call, { connection: connect(), concurrency });
  worker.on("error", (error) => console.error(error));
  worker.on("failed", (job, error) => console.error(job?.data, error));
  await worker.waitUntilReady();
  await rows.query("SELECT 1");
  console.log("ready");
  process.once("SIGTERM", async () => {
    await worker.close();
    process.exit(0);
  });
}

await { create, work }[process.argv[2]]();
