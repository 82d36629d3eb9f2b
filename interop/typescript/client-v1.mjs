// The official TypeScript SDK, first generation (`@modelcontextprotocol/sdk`).

import { UnauthorizedError } from "@modelcontextprotocol/sdk/client/auth.js";
import { Client } from "@modelcontextprotocol/sdk/client/index.js";
import { StreamableHTTPClientTransport } from "@modelcontextprotocol/sdk/client/streamableHttp.js";

import { drive } from "./shared/drive.mjs";

await drive({
  name: "interop-typescript-v1",
  eras: ["legacy"],
  Client,
  Transport: StreamableHTTPClientTransport,
  UnauthorizedError,
  clientOptions: () => ({}),
  finishAuth: (transport, parameters) => transport.finishAuth(parameters.get("code")),
  protocolVersion: (_client, transport) => transport.protocolVersion,
});
