// The table of scenarios, and whether what a client saw is what it says.
import { randomUUID } from "node:crypto";
import { readFileSync } from "node:fs";

export const { scenarios } = JSON.parse(readFileSync(new URL("scenarios.json", import.meta.url), "utf8"));

/** What the test gives: addresses, tokens by role, ids. */
export const given = JSON.parse(process.env.GAVEL_INTEROP);

/** Where operators' calls are served, which no gateway leads to, and which is nobody's but its own machine's: without TLS. */
export const isForOperators = (method) => method.startsWith("OpsService/");

/** Long enough for anything, so that a client that waits for ever is a failure and not a hang. */
export const PATIENCE_MS = 20_000;

const fill = (value, names) => {
  if (Array.isArray(value)) return value.map((entry) => fill(entry, names));
  if (value && typeof value === "object") {
    return Object.fromEntries(Object.entries(value).map(([key, entry]) => [key, fill(entry, names)]));
  }
  if (value === "$uuid") return randomUUID();
  if (value === "$large") return "x".repeat(100 * 1024);
  return typeof value === "string" && value.startsWith("$") ? names[value.slice(1)] : value;
};

/** Whether everything of `expected` is in `seen`. */
const holds = (expected, seen) => {
  if (expected === null || typeof expected !== "object") return expected === seen;
  if (seen === null || typeof seen !== "object") return false;
  if (Array.isArray(expected)) {
    return expected.every((entry) => seen.some((candidate) => holds(entry, candidate)));
  }
  return Object.entries(expected).every(([key, entry]) => holds(entry, seen[key]));
};

/** Frames in their order; heartbeats between them are passed over. */
const framesHold = (expected, frames) => {
  let next = 0;
  for (const frame of frames) {
    if (next < expected.length && holds(expected[next], frame)) next += 1;
    else if (!frame.heartbeat) return false;
  }
  return next === expected.length;
};

/** What is wrong with what was seen; nothing where it is as expected. */
const fault = (expect, seen) => {
  const code = expect.code ?? "ok";
  if (seen.code !== code) return `ended with ${seen.code} (${seen.message ?? ""}) instead of ${code}`;
  if (expect.message && !seen.message?.includes(expect.message)) return `said ${seen.message}`;
  if (expect.reply && !holds(expect.reply, seen.reply)) return `replied ${JSON.stringify(seen.reply)}`;
  if (expect.frames && !framesHold(expect.frames, seen.frames)) return `streamed ${JSON.stringify(seen.frames)}`;
  if (expect.detail && !holds(expect.detail.value, seen.details?.[expect.detail.type])) {
    return `had the details ${JSON.stringify(seen.details)}`;
  }
  return undefined;
};

/**
 * Runs the table with one client. `call` makes one call: it gives { code, message, reply, frames, details }, the reply and frames as
 * JSON, and stops reading a stream once `enough(frames)`.
 */
export const check = async (client, call, chosen = scenarios) => {
  const names = { ...given.names };
  let failed = 0;
  for (const scenario of chosen) {
    const { expect, ...rest } = scenario;
    const wanted = fill(expect, names);
    const asked = { ...rest, request: fill(rest.request, names), token: given.tokens[rest.as] };
    asked.enough = (frames) => wanted.frames !== undefined && framesHold(wanted.frames, frames);
    const late = new Promise((_, reject) => {
      setTimeout(() => reject(new Error("nothing came")), PATIENCE_MS).unref();
    });
    let seen;
    try {
      seen = await Promise.race([call(asked), late]);
    } catch (error) {
      seen = { code: "the client failed", message: String(error.stack ?? error) };
    }
    const wrong = fault(wanted, seen);
    if (wrong) {
      failed += 1;
      console.log(`${client}: ${scenario.name} (${scenario.method}): ${wrong}`);
    }
    for (const [name, path] of Object.entries(scenario.save ?? {})) {
      names[name] = path.split(".").reduce((value, key) => value?.[key], seen.reply);
    }
  }
  console.log(`${client}: ${chosen.length - failed} of ${chosen.length} scenarios are as they should be`);
  if (failed > 0) process.exitCode = 1;
};
