// @grpc/grpc-js, with messages read from the contracts as they are.
import grpc from "@grpc/grpc-js";
import { loadSync } from "@grpc/proto-loader";
import { fromBinary, toJson } from "@bufbuild/protobuf";
import { AnySchema } from "@bufbuild/protobuf/wkt";
import { BidRefusedSchema } from "@gavel/client/errors";
import { given, isForOperators, check } from "./table.mjs";

const root = new URL("../../proto", import.meta.url).pathname;
const files = ["item", "bid", "user", "ops"].map((name) => `gavel/v1/${name}.proto`);
const contracts = loadSync(files, { includeDirs: [root], longs: String, enums: String, defaults: false, oneofs: false });
const { v1 } = grpc.loadPackageDefinition(contracts).gavel;
const credentials = given.ca ? grpc.credentials.createSsl(Buffer.from(given.caText)) : grpc.credentials.createInsecure();
const host = (url) => url.replace(/^https?:\/\//, "");
const CODES = Object.fromEntries(Object.entries(grpc.status).map(([name, code]) => [code, name.toLowerCase().replace("cancelled", "canceled")]));
const clients = {};

/** google.protobuf.Timestamp is a message here; in the table it is JSON's text. */
const timestamps = (value) => {
  if (Array.isArray(value) || value === null || typeof value !== "object") return value;
  return Object.fromEntries(
    Object.entries(value).map(([key, entry]) => [
      key,
      key.endsWith("At") ? { seconds: Math.floor(Date.parse(entry) / 1000), nanos: 0 } : timestamps(entry),
    ]),
  );
};

/** The details of a google.rpc.Status: field 3, each an Any. */
const detailsOf = (metadata) => {
  const bytes = metadata.get("grpc-status-details-bin")[0];
  const details = {};
  for (let at = 0; bytes && at < bytes.length; ) {
    const tag = bytes[at++];
    let size = 0;
    for (let shift = 0; ; shift += 7) {
      size |= (bytes[at] & 0x7f) << shift;
      if (bytes[at++] < 0x80) break;
    }
    if ((tag & 7) !== 2) continue;
    if (tag >> 3 === 3) {
      const any = fromBinary(AnySchema, bytes.subarray(at, at + size));
      if (any.typeUrl.endsWith("/gavel.v1.BidRefused")) details.BidRefused = toJson(BidRefusedSchema, fromBinary(BidRefusedSchema, any.value));
    }
    at += size;
  }
  return details;
};

const call = (asked) =>
  new Promise((resolve) => {
    const [service, method] = asked.method.split("/");
    clients[service] ??= isForOperators(asked.method)
      ? new v1[service](host(given.opsUrl), grpc.credentials.createInsecure())
      : new v1[service](host(given.url), credentials);
    const metadata = new grpc.Metadata();
    if (asked.token) metadata.set("authorization", `Bearer ${asked.token}`);
    const options = asked.timeoutMs ? { deadline: Date.now() + asked.timeoutMs } : {};
    const failure = (error) => ({ code: CODES[error.code], message: error.details, details: detailsOf(error.metadata) });
    const request = timestamps(asked.request);
    let running;
    if (!asked.stream) {
      running = clients[service][method](request, metadata, options, (error, reply) => resolve(error ? failure(error) : { code: "ok", reply }));
    } else {
      const frames = [];
      running = clients[service][method](request, metadata, options);
      running.on("data", (frame) => {
        frames.push(frame);
        if (asked.enough(frames)) {
          resolve({ code: "ok", frames });
          running.cancel();
        }
      });
      running.on("end", () => resolve({ code: "ok", frames }));
      running.on("error", (error) => resolve({ ...failure(error), frames }));
    }
    if (asked.cancelAfterMs) setTimeout(() => running.cancel(), asked.cancelAfterMs);
  });

await check("grpc-js", call);
process.exit();
