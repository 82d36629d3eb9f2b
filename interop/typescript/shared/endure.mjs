// Calls without end, while the server has a hard time: one at a time in each session, until an order comes. Each is told of by a
// `call` event with the mark that it carried, when it began and ended, and what came of it; what the server says beside
// its answers by a `heard` event. What may fail is for the test to judge.

import { describe, emit } from "./protocol.mjs";

/** How long the last message of the server may take to arrive. */
const PATIENCE_MS = 20_000;

/** Prepares a client, before it connects. */
export function listen(sdk, client, mark) {
  const latest = { mark: undefined, wake: () => {} };
  sdk.onNotification(client, "notifications/message", ({ params }) => {
    emit("heard", { session: mark, data: params.data });
    latest.mark = params.data.mark;
    latest.wake();
  });
  return latest;
}

/** Has all sessions make calls until the next order. */
export async function endure(sdk, sessions, name, orders) {
  let over = false;
  emit("ready");
  const ordered = orders.next().then(() => (over = true));
  await Promise.all(sessions.map((session) => callOn(sdk, session, `${name}-${session.number}`, () => over)));
  await ordered;
}

async function callOn(sdk, { client, heard }, name, over) {
  let turn = 0;
  for (; !over(); turn += 1) {
    await pause(20 + Math.random() * 100);
    await callOnce(sdk, client, name, turn);
  }
  // Now that all is quiet: what the server says arrives.
  await callOnce(sdk, client, name, turn);
  const deadline = Date.now() + PATIENCE_MS;
  while (heard.mark !== `${name}.${turn}` && Date.now() < deadline) {
    await Promise.race([new Promise((resolve) => (heard.wake = resolve)), pause(deadline - Date.now())]);
  }
}

async function callOnce(sdk, client, name, turn) {
  const mark = `${name}.${turn}`;
  const args = { mark, whose: true, announce: true, ms: turn % 2 === 0 ? Math.floor(Math.random() * 60) : 0 };
  const began = Date.now();
  let outcome;
  try {
    const result = await sdk.callTool(client, { name: "test_stamp", arguments: args });
    outcome = { text: result.content[0].text };
  } catch (error) {
    outcome = { failed: describe(error) };
  }
  emit("call", { session: name, mark, began, ended: Date.now() + 1, ...outcome });
}

function pause(ms) {
  return new Promise((resolve) => setTimeout(resolve, ms));
}
