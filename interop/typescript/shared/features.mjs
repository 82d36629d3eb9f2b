// A tour of what a server and its client can do with each other, against the server of `testkit/src/conformance.rs`, the
// same for both SDK generations. Each stop ends in a `feature` event that says what came of it; whether that is right is for
// the test to judge. The answers that a client gives to the server's questions are fixed, and the same in every language.

import { emit } from "./protocol.mjs";

/** What the client declares, so that it is asked. */
export const CAPABILITIES = { sampling: {}, elicitation: {}, roots: { listChanged: true } };

const WATCHED = "test://watched-resource";

/** How long something may take to arrive. */
const PATIENCE_MS = 20_000;

/** The notifications that a client was sent, in the order in which they came. */
export class Heard {
  #messages = [];
  #wake = () => {};

  /** Notes one. */
  add(notification) {
    this.#messages.push(notification);
    this.#wake();
  }

  /** Those of a method. */
  of(method) {
    return this.#messages.filter((message) => message.method === method);
  }

  /** Waits until there are `count` of a method. */
  async until(method, count) {
    const deadline = Date.now() + PATIENCE_MS;
    while (this.of(method).length < count) {
      const left = deadline - Date.now();
      if (left <= 0) throw new Error(`${this.of(method).length} of ${count} times ${method} have come`);
      await new Promise((resolve) => {
        const timer = setTimeout(resolve, left);
        this.#wake = () => {
          clearTimeout(timer);
          resolve();
        };
      });
    }
  }
}

/** Prepares a client for the tour, before it connects. */
export function equip(sdk, client) {
  const heard = new Heard();
  sdk.onRequest(client, "sampling/createMessage", ({ params }) => ({
    role: "assistant",
    content: { type: "text", text: `sampled: ${params.messages[0].content.text}` },
    model: sdk.name,
    stopReason: "endTurn",
  }));
  sdk.onRequest(client, "elicitation/create", () => ({ action: "accept", content: { username: "ada", email: "ada@example.org" } }));
  sdk.onRequest(client, "roots/list", () => ({ roots: [{ uri: "file:///one" }, { uri: "file:///two" }] }));
  for (const method of ["notifications/message", "notifications/resources/updated", "notifications/tools/list_changed"]) {
    sdk.onNotification(client, method, (notification) => heard.add(notification));
  }
  return heard;
}

/** Takes the tour. */
export async function tour(sdk, { client, heard }) {
  const call = async (name, args = {}, options = {}) => {
    const result = await sdk.callTool(client, { name, arguments: args }, options);
    return result.content[0].text;
  };

  const progress = [];
  await call("test_tool_with_progress", {}, { onprogress: (report) => progress.push(report.progress) });
  feature("progress", progress);

  await client.setLoggingLevel("debug");
  await call("test_tool_with_logging");
  await heard.until("notifications/message", 3);
  feature("logging", heard.of("notifications/message").map((message) => message.params.data));

  await client.setLoggingLevel("error");
  await call("test_tool_with_logging");
  await call("change_tools");
  // What was sent before it would have come before it.
  await heard.until("notifications/tools/list_changed", 1);
  feature("list_changed", heard.of("notifications/message").length);

  feature("sampling", await call("test_sampling", { prompt: "hello" }));
  feature("elicitation", await call("test_elicitation", { message: "who?" }));
  feature("roots", await call("roots"));

  await client.subscribeResource({ uri: WATCHED });
  await call("update_resource", { uri: WATCHED });
  await heard.until("notifications/resources/updated", 1);
  await client.unsubscribeResource({ uri: WATCHED });
  const after = await call("update_resource", { uri: WATCHED });
  const updates = heard.of("notifications/resources/updated").map((message) => message.params.uri);
  feature("subscription", [...updates, after]);

  feature("cancellation", await cancel(call));
  feature("resumption", await call("test_reconnection"));
}

/** Cancels a call as soon as it has begun, and asks the server which calls were cancelled. */
async function cancel(call) {
  const abort = new AbortController();
  const options = { signal: abort.signal, onprogress: () => abort.abort("enough") };
  const waited = await call("wait", { tag: "mine" }, options).catch(() => undefined);
  if (waited !== undefined) return waited;
  // The cancellation is a message of its own, which may come after the next call.
  const deadline = Date.now() + PATIENCE_MS;
  for (;;) {
    const cancelled = await call("cancelled");
    if (cancelled !== "" || Date.now() > deadline) return cancelled;
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

function feature(name, result) {
  emit("feature", { name, result });
}
