// @connectrpc/connect-node over all protocols and both versions of HTTP, and @connectrpc/connect-web as a browser would use it.
import { fromJson, toJson } from "@bufbuild/protobuf";
import { Code, ConnectError, createClient } from "@connectrpc/connect";
import * as node from "@connectrpc/connect-node";
import * as web from "@connectrpc/connect-web";
import { BidService } from "@gavel/client/bid";
import { BidRefusedSchema } from "@gavel/client/errors";
import { ItemService } from "@gavel/client/item";
import { OpsService } from "@gavel/client/ops";
import { UserService } from "@gavel/client/user";
import { given, isForOperators, check } from "./table.mjs";

const services = { BidService, ItemService, OpsService, UserService };
const CODES = Object.fromEntries(
  Object.entries(Code).filter(([, code]) => typeof code === "number").map(([name, code]) => [code, name.replace(/(?<!^)([A-Z])/g, "_$1").toLowerCase()]),
);

const over = (transport, inside) => async (asked) => {
  const [serviceName, methodName] = asked.method.split("/");
  const service = services[serviceName];
  const method = service.methods.find((candidate) => candidate.name === methodName);
  const client = createClient(service, isForOperators(asked.method) ? inside : transport);
  const cancelled = new AbortController();
  const options = {
    headers: asked.token ? { authorization: `Bearer ${asked.token}` } : {},
    timeoutMs: asked.timeoutMs,
    signal: cancelled.signal,
  };
  if (asked.cancelAfterMs) setTimeout(() => cancelled.abort(), asked.cancelAfterMs);
  const frames = [];
  try {
    const request = fromJson(method.input, asked.request);
    if (!asked.stream) {
      const reply = await client[method.localName](request, options);
      return { code: "ok", reply: toJson(method.output, reply) };
    }
    for await (const frame of client[method.localName](request, options)) {
      frames.push(toJson(method.output, frame));
      if (asked.enough(frames)) break;
    }
    return { code: "ok", frames };
  } catch (error) {
    const failure = ConnectError.from(error);
    const refused = failure.findDetails(BidRefusedSchema)[0];
    const details = refused ? { BidRefused: toJson(BidRefusedSchema, refused) } : {};
    return { code: CODES[failure.code], message: failure.rawMessage, frames, details };
  } finally {
    cancelled.abort();
  }
};

const nodeOptions = given.ca ? { nodeOptions: { ca: given.caText } } : {};
/** One kind of client for both listeners. */
const each = (make, options, prefix = given.prefix) => [
  make({ baseUrl: given.url + prefix, ...options, ...nodeOptions }),
  make({ baseUrl: given.opsUrl, ...options }),
];
const clients = {
  "connect-node, Connect, HTTP/2": each(node.createConnectTransport, { httpVersion: "2", useBinaryFormat: true, useHttpGet: true }),
  "connect-node, Connect in JSON, HTTP/1.1": each(node.createConnectTransport, { httpVersion: "1.1", useBinaryFormat: false }),
  "connect-node, gRPC": each(node.createGrpcTransport, {}, ""),
  "connect-node, gRPC-Web, HTTP/2": each(node.createGrpcWebTransport, { httpVersion: "2" }),
  "connect-node, gRPC-Web, HTTP/1.1": each(node.createGrpcWebTransport, { httpVersion: "1.1" }),
  "connect-web, Connect": each(web.createConnectTransport, { useBinaryFormat: true, useHttpGet: true }),
  "connect-web, gRPC-Web": each(web.createGrpcWebTransport, {}),
};
for (const [name, [transport, inside]] of Object.entries(clients)) await check(name, over(transport, inside));
process.exit();
