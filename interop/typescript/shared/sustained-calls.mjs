// Calls without pause, one at a time in each session, until a command comes. A `call` event reports
// each call with its mark, its times and its outcome. A `notification` event reports each
// notification of the server. The test decides which calls may fail.

import { NotificationSignal, describe, emit } from "./protocol.mjs";

/** The longest time that the last notification takes to arrive. */
const NOTIFICATION_TIMEOUT_MS = 20_000;

/** Installs the notification handler of a client that has not connected yet. */
export function reportNotifications(sdk, client, session) {
  const received = { mark: undefined, signal: new NotificationSignal() };
  sdk.onNotification(client, "notifications/message", ({ params }) => {
    emit("notification", { session, data: params.data });
    received.mark = params.data.mark;
    received.signal.notify();
  });
  return received;
}

/** Calls in all sessions until the next command. */
export async function callUntilCommand(sdk, sessions, prefix, commands) {
  let finished = false;
  emit("ready");
  const command = commands.next().then(() => (finished = true));
  await Promise.all(sessions.map((session) => callUntil(sdk, session, `${prefix}-${session.number}`, () => finished)));
  await command;
}

async function callUntil(sdk, { client, received }, session, isFinished) {
  let number = 0;
  for (; !isFinished(); number += 1) {
    await new Promise((resolve) => setTimeout(resolve, 20 + Math.random() * 100));
    await callOnce(sdk, client, session, number);
  }
  // There are no more faults: the last call succeeds, and its notification arrives.
  await callOnce(sdk, client, session, number);
  // The test reports a missing notification.
  await received.signal.until(() => received.mark === `${session}.${number}`, NOTIFICATION_TIMEOUT_MS);
}

async function callOnce(sdk, client, session, number) {
  const mark = `${session}.${number}`;
  const args = { mark, whose: true, announce: true, ms: number % 2 === 0 ? Math.floor(Math.random() * 60) : 0 };
  const start = Date.now();
  let outcome;
  try {
    const result = await sdk.callTool(client, { name: "test_stamp", arguments: args });
    outcome = { text: result.content[0].text };
  } catch (error) {
    outcome = { error: describe(error) };
  }
  // Rounded up, so that the period contains the call.
  emit("call", { session, mark, start, end: Date.now() + 1, ...outcome });
}
