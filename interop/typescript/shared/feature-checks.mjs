// Checks of the features that involve both a server and its client, with the server of
// `testkit/src/conformance.rs`. They are the same for both SDK generations. Each check ends with a
// `feature` event, and the test compares its result. The client's answers to the server are fixed,
// and the same in every language.

import { NotificationSignal, emit } from "./protocol.mjs";

/** The capabilities of the client, without which the server sends no requests. */
export const CAPABILITIES = { sampling: {}, elicitation: {}, roots: { listChanged: true } };

const WATCHED = "test://watched-resource";

/** The user's answers, by the field of the form. */
const ANSWERS = { username: "ada", email: "ada@example.org", name: "ada", color: "blue" };

const LOG_LEVEL = "io.modelcontextprotocol/logLevel";

/** The longest time that a notification or a cancellation takes to arrive. */
const ARRIVAL_TIMEOUT_MS = 20_000;

/** The notifications that a client has received, in their order. */
class ReceivedNotifications {
  #notifications = [];
  #signal = new NotificationSignal();

  add(notification) {
    this.#notifications.push(notification);
    this.#signal.notify();
  }

  clear() {
    this.#notifications = [];
  }

  /** The notifications with a method. */
  withMethod(method) {
    return this.#notifications.filter((notification) => notification.method === method);
  }

  /** Waits until there are `count` notifications with a method. */
  async until(method, count) {
    if (!(await this.#signal.until(() => this.withMethod(method).length >= count, ARRIVAL_TIMEOUT_MS))) {
      throw new Error(`received ${this.withMethod(method).length} of ${count} ${method}`);
    }
  }
}

/** Installs the handlers of a client that has not connected yet. */
export function installHandlers(sdk, client) {
  const received = new ReceivedNotifications();
  sdk.onRequest(client, "sampling/createMessage", ({ params }) => ({
    role: "assistant",
    content: { type: "text", text: `sampled: ${params.messages[0].content.text}` },
    model: sdk.name,
    stopReason: "endTurn",
  }));
  sdk.onRequest(client, "elicitation/create", ({ params }) => {
    const fields = Object.keys(params.requestedSchema.properties);
    return { action: "accept", content: Object.fromEntries(fields.map((field) => [field, ANSWERS[field]])) };
  });
  sdk.onRequest(client, "roots/list", () => ({ roots: [{ uri: "file:///one" }, { uri: "file:///two" }] }));
  for (const method of ["notifications/message", "notifications/resources/updated", "notifications/tools/list_changed"]) {
    sdk.onNotification(client, method, (notification) => received.add(notification));
  }
  return received;
}

/** Makes all checks in one session. */
export async function checkFeatures(sdk, { client, transport, received }) {
  // From 2026-07-28 on there are no sessions: a request names its log level, and a stream of its own
  // carries what a client has subscribed to.
  const isStateless = sdk.protocolVersion(client, transport) >= "2026-07-28";
  received.clear();
  const call = async (name, args = {}, options = {}, meta = {}) => {
    const result = await sdk.callTool(client, { name, arguments: args, _meta: meta }, options);
    return result.content[0].text;
  };
  const callAtLevel = async (level, name) => {
    if (isStateless) return call(name, {}, {}, { [LOG_LEVEL]: level });
    await client.setLoggingLevel(level);
    return call(name);
  };

  const progress = [];
  await call("test_tool_with_progress", {}, { onprogress: (report) => progress.push(report.progress) });
  feature("progress", progress);

  await callAtLevel("debug", "test_tool_with_logging");
  await received.until("notifications/message", 3);
  feature("logging", received.withMethod("notifications/message").map((message) => message.params.data));

  await callAtLevel("error", "test_tool_with_logging");
  const changes = isStateless && (await client.listen({ toolsListChanged: true }));
  await call("test_trigger_tool_change");
  // Notifications arrive in order: all earlier messages have arrived with this one.
  await received.until("notifications/tools/list_changed", 1);
  if (isStateless) await changes.close();
  feature("list_changed", received.withMethod("notifications/message").length);

  feature("sampling", await call("test_sampling", { prompt: "hello" }));
  feature("elicitation", await call("test_elicitation", { message: "who?" }));
  feature("roots", await call("roots"));
  feature("rounds", await call("test_input_required_result_multi_round"));

  const updated = isStateless && (await client.listen({ resourceSubscriptions: [WATCHED] }));
  if (!isStateless) await client.subscribeResource({ uri: WATCHED });
  await call("update_resource", { uri: WATCHED });
  await received.until("notifications/resources/updated", 1);
  if (isStateless) await updated.close();
  else await client.unsubscribeResource({ uri: WATCHED });
  // The end of a stream is not answered: the server may learn of it after the next call.
  const textWithoutSubscription = await poll(() => call("update_resource", { uri: WATCHED }), (text) => text !== "sent");
  const updates = received.withMethod("notifications/resources/updated").map((message) => message.params.uri);
  feature("subscription", [...updates, textWithoutSubscription]);

  feature("cancellation", await cancel(call));
  if (!isStateless) feature("resumption", await call("test_reconnection"));
}

/** Cancels a call as soon as it has started, and asks the server for the cancelled calls. */
async function cancel(call) {
  const abort = new AbortController();
  const options = { signal: abort.signal, onprogress: () => abort.abort("enough") };
  const text = await call("wait", { tag: "mine" }, options).catch(() => undefined);
  if (text !== undefined) return text;
  // The cancellation is a separate message, which may arrive after the next call.
  return poll(() => call("cancelled"), (tags) => tags !== "");
}

/** Calls until the result is as wanted, or the time is over. Returns the last result. */
async function poll(call, isWanted) {
  const deadline = Date.now() + ARRIVAL_TIMEOUT_MS;
  for (;;) {
    const result = await call();
    if (isWanted(result) || Date.now() > deadline) return result;
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

function feature(name, result) {
  emit("feature", { name, result });
}
