// The official TypeScript SDK, second generation (`@modelcontextprotocol/client`).

import { Client, StreamableHTTPClientTransport, UnauthorizedError, createPrivateKeyJwtAuth } from "@modelcontextprotocol/client";

import { drive } from "./shared/drive.mjs";

await drive({
  name: "interop-typescript-v2",
  eras: ["legacy", "auto"],
  Client,
  Transport: StreamableHTTPClientTransport,
  UnauthorizedError,
  signer: createPrivateKeyJwtAuth,
  clientOptions: (era) => ({ versionNegotiation: { mode: era } }),
  callTool: (client, params, options) => client.callTool(params, options),
  onRequest: (client, method, handler) => client.setRequestHandler(method, handler),
  onNotification: (client, method, handler) => client.setNotificationHandler(method, handler),
  // All parameters, and not the code alone: this generation checks `iss` (RFC 9207) from them.
  finishAuth: (transport, parameters) => transport.finishAuth(parameters),
  protocolVersion: (client) => client.getNegotiatedProtocolVersion(),
});
