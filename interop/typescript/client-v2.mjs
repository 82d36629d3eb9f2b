// The official TypeScript SDK, second generation (`@modelcontextprotocol/client`).

import { Client, StreamableHTTPClientTransport, UnauthorizedError, createPrivateKeyJwtAuth } from "@modelcontextprotocol/client";

import { runClient } from "./shared/run.mjs";

await runClient({
  name: "interop-typescript-v2",
  eras: ["legacy", "auto", "pin"],
  Client,
  Transport: StreamableHTTPClientTransport,
  UnauthorizedError,
  createSigner: createPrivateKeyJwtAuth,
  clientOptions: (era) => ({ versionNegotiation: { mode: era === "pin" ? { pin: "2026-07-28" } : era } }),
  callTool: (client, params, options) => client.callTool(params, options),
  onRequest: (client, method, handler) => client.setRequestHandler(method, handler),
  onNotification: (client, method, handler) => client.setNotificationHandler(method, handler),
  // All parameters, not only the code: this generation also checks `iss` (RFC 9207).
  finishAuth: (transport, parameters) => transport.finishAuth(parameters),
  protocolVersion: (client) => client.getNegotiatedProtocolVersion(),
});
