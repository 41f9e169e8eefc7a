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
import { given, judge } from "./judge.mjs";

const services = { BidService, ItemService, OpsService, UserService };
const CODES = Object.fromEntries(
  Object.entries(Code).filter(([, code]) => typeof code === "number").map(([name, code]) => [code, name.replace(/(?<!^)([A-Z])/g, "_$1").toLowerCase()]),
);

const over = (transport) => async (asked) => {
  const [serviceName, methodName] = asked.method.split("/");
  const service = services[serviceName];
  const method = service.methods.find((candidate) => candidate.name === methodName);
  const client = createClient(service, transport);
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
const browser = given.url + given.prefix;
const clients = {
  "connect-node, Connect, HTTP/2": node.createConnectTransport({ baseUrl: browser, httpVersion: "2", useBinaryFormat: true, useHttpGet: true, ...nodeOptions }),
  "connect-node, Connect in JSON, HTTP/1.1": node.createConnectTransport({ baseUrl: browser, httpVersion: "1.1", useBinaryFormat: false, ...nodeOptions }),
  "connect-node, gRPC": node.createGrpcTransport({ baseUrl: given.url, ...nodeOptions }),
  "connect-node, gRPC-Web, HTTP/2": node.createGrpcWebTransport({ baseUrl: browser, httpVersion: "2", ...nodeOptions }),
  "connect-node, gRPC-Web, HTTP/1.1": node.createGrpcWebTransport({ baseUrl: browser, httpVersion: "1.1", ...nodeOptions }),
  "connect-web, Connect": web.createConnectTransport({ baseUrl: browser, useBinaryFormat: true, useHttpGet: true }),
  "connect-web, gRPC-Web": web.createGrpcWebTransport({ baseUrl: browser }),
};
for (const [name, transport] of Object.entries(clients)) await judge(name, over(transport));
process.exit();
