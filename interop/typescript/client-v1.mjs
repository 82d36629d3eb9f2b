// The official TypeScript SDK, first generation (`@modelcontextprotocol/sdk`).

import { createPrivateKeyJwtAuth } from "@modelcontextprotocol/sdk/client/auth-extensions.js";
import { UnauthorizedError } from "@modelcontextprotocol/sdk/client/auth.js";
import { Client } from "@modelcontextprotocol/sdk/client/index.js";
import { StreamableHTTPClientTransport } from "@modelcontextprotocol/sdk/client/streamableHttp.js";
import * as types from "@modelcontextprotocol/sdk/types.js";

import { runClient } from "./shared/run.mjs";

// This generation identifies a method by its schema.
const SCHEMAS = {
  "elicitation/create": types.ElicitRequestSchema,
  "notifications/message": types.LoggingMessageNotificationSchema,
  "notifications/resources/updated": types.ResourceUpdatedNotificationSchema,
  "notifications/tools/list_changed": types.ToolListChangedNotificationSchema,
  "roots/list": types.ListRootsRequestSchema,
  "sampling/createMessage": types.CreateMessageRequestSchema,
};

await runClient({
  name: "interop-typescript-v1",
  eras: ["legacy"],
  Client,
  Transport: StreamableHTTPClientTransport,
  UnauthorizedError,
  createSigner: createPrivateKeyJwtAuth,
  clientOptions: () => ({}),
  callTool: (client, params, options) => client.callTool(params, undefined, options),
  onRequest: (client, method, handler) => client.setRequestHandler(SCHEMAS[method], handler),
  onNotification: (client, method, handler) => client.setNotificationHandler(SCHEMAS[method], handler),
  finishAuth: (transport, parameters) => transport.finishAuth(parameters.get("code")),
  protocolVersion: (_client, transport) => transport.protocolVersion,
});
