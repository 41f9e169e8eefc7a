// buf curl over the three protocols, with the contracts as its schema; and over the operators' listener with what the service says of
// itself by reflection.
import { execFile } from "node:child_process";
import { createRequire } from "node:module";
import { fromBinary, toJson } from "@bufbuild/protobuf";
import { BidRefusedSchema } from "@gavel/client/errors";
import { given, isForOperators, check, scenarios } from "./table.mjs";

const root = new URL("../..", import.meta.url).pathname;
// The program itself: its wrapper would leave it running when killed.
const buf = createRequire(import.meta.url).resolve(`@bufbuild/buf-${process.platform}-${process.arch}/bin/buf`);
const CODES = /"code":\s*"([a-z_]+)"/;

const detailsOf = (failure) => {
  const value = /"type":\s*"gavel.v1.BidRefused",\s*"value":\s*"([^"]+)"/.exec(failure)?.[1];
  if (!value) return {};
  return { BidRefused: toJson(BidRefusedSchema, fromBinary(BidRefusedSchema, Buffer.from(value, "base64"))) };
};

const BY_FILE = ["--schema", `${root}proto`];
const BY_REFLECTION = ["--reflect"];

const over = (protocol, schema = BY_FILE) => (asked) =>
  new Promise((resolve) => {
    const inside = schema === BY_REFLECTION || isForOperators(asked.method);
    const url = inside ? given.opsUrl : given.url + (protocol === "grpc" ? "" : given.prefix);
    const to = ["--protocol", protocol, ...schema, "--emit-defaults"];
    to.push(...(given.ca && !inside ? ["--cacert", given.ca] : ["--http2-prior-knowledge"]));
    if (asked.token) to.push("--header", `authorization: Bearer ${asked.token}`);
    to.push("--data", JSON.stringify(asked.request), `${url}/gavel.v1.${asked.method}`);
    const frames = [];
    const child = execFile(buf, ["curl", ...to], { cwd: root }, (error, output, complaint) => {
      if (asked.stream) return resolve({ code: "ok", frames });
      if (!error) return resolve({ code: "ok", reply: JSON.parse(output) });
      const failure = complaint.slice(Math.max(0, complaint.indexOf("{")));
      const code = CODES.exec(failure)?.[1] ?? "the client failed";
      resolve({ code, message: complaint, details: detailsOf(failure) });
    });
    let text = "";
    child.stdout.on("data", (chunk) => {
      if (!asked.stream) return;
      text += chunk;
      // Messages follow one another, each on lines of its own or all on one.
      for (let end = text.indexOf("\n}\n"); end >= 0; end = text.indexOf("\n}\n")) {
        frames.push(JSON.parse(text.slice(0, end + 2)));
        text = text.slice(end + 3);
      }
      for (let end = text.indexOf("}\n"); end >= 0 && !text.startsWith("{\n"); end = text.indexOf("}\n")) {
        frames.push(JSON.parse(text.slice(0, end + 1)));
        text = text.slice(end + 2);
      }
      if (asked.enough(frames)) child.kill();
    });
  });

// A process for each call: those scenarios that differ between protocols, and the one whose item they need.
const chosen = scenarios.filter((scenario) => scenario.curl || scenario.save);
for (const protocol of ["grpc", "grpcweb", "connect"]) await check(`buf curl, ${protocol}`, over(protocol), chosen);
const inside = chosen.concat(scenarios.filter((scenario) => scenario.name === "operators see the handlers"));
if (!given.ca) await check("buf curl, by reflection", over("grpc", BY_REFLECTION), inside);
process.exit();
