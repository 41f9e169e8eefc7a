// pg-boss at its fastest: two workers that fetch 500 at a time and fetch again at once while batches are full.
import pg from "pg";
import { PgBoss } from "pg-boss";

const [command, connectionString, countText, batchText] = process.argv.slice(2);
const count = Number(countText);
const client = new pg.Client({ connectionString });
await client.connect();
const boss = new PgBoss({ connectionString, max: 8, schedule: false });
boss.on("error", (error) => console.error(error));
await boss.start();
await boss.createQueue("noop");

const db = { executeSql: (text, values) => client.query(text, values) };

async function enqueue(batch) {
  const began = performance.now();
  for (let n = 0; n < count; n += batch) {
    await client.query("BEGIN");
    if (batch === 1) await boss.send("noop", { n }, { db });
    else await boss.insert("noop", Array.from({ length: batch }, (_, i) => ({ data: { n: n + i } })), { db });
    await client.query("COMMIT");
  }
  return performance.now() - began;
}

async function drain() {
  await enqueue(10_000);
  await client.query("VACUUM ANALYZE");
  let ran = 0;
  let ended;
  const done = new Promise((resolve) => (ended = resolve));
  const began = performance.now();
  const options = { batchSize: 500, pollingIntervalSeconds: 0.5, burstWhenBatchFull: true };
  const work = async (jobs) => { ran += jobs.length; if (ran >= count) ended(); };
  await Promise.all([boss.work("noop", options, work), boss.work("noop", options, work)]);
  await done;
  const query = "SELECT count(*)::int AS n FROM pgboss.job WHERE name = 'noop' AND state < 'completed'";
  while ((await client.query(query)).rows[0].n > 0) await new Promise((resolve) => setTimeout(resolve, 1));
  return performance.now() - began;
}

const took = command === "drain" ? await drain() : await enqueue(Number(batchText));
console.log(JSON.stringify({ jobs: count, seconds: took / 1000 }));
process.exit(0);
