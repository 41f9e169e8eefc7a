// graphile-worker at its fastest: jobs fetched 500 at a time into memory, completions gathered. Prints one line of JSON.
import { Logger, run, runMigrations } from "graphile-worker";
import pg from "pg";

const [command, connectionString, countText, batchText] = process.argv.slice(2);
const count = Number(countText);
const logger = new Logger(() => () => {});
const client = new pg.Client({ connectionString });
await client.connect();
await runMigrations({ connectionString, logger });

const addJobs = `SELECT count(*) FROM graphile_worker.add_jobs(
  (SELECT array_agg(json_populate_record(null::graphile_worker.job_spec,
     json_build_object('identifier', 'noop', 'payload', json_build_object('n', n))))
   FROM generate_series(1, $1::int) n))`;

async function enqueue(batch) {
  const began = performance.now();
  for (let n = 0; n < count; n += batch) {
    await client.query("BEGIN");
    if (batch === 1) await client.query("SELECT graphile_worker.add_job('noop', $1::json)", [JSON.stringify({ n })]);
    else await client.query(addJobs, [batch]);
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
  const runner = await run({
    connectionString,
    logger,
    noHandleSignals: true,
    taskList: { noop: () => { if (++ran === count) ended(); } },
    preset: { worker: { concurrentJobs: 24, localQueue: { size: 500 }, completeJobBatchDelay: 0, failJobBatchDelay: 0 } },
  });
  await done;
  const left = async () => (await client.query("SELECT count(*)::int AS n FROM graphile_worker.jobs")).rows[0].n;
  while ((await left()) > 0) await new Promise((resolve) => setTimeout(resolve, 1));
  const took = performance.now() - began;
  await runner.stop();
  return took;
}

const took = command === "drain" ? await drain() : await enqueue(Number(batchText));
console.log(JSON.stringify({ jobs: count, seconds: took / 1000 }));
process.exit(0);
