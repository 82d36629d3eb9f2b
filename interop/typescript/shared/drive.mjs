// The course of a run, the same for both SDK generations. A generation is an adapter:
//
//   name              what the client calls itself
//   eras              the values of ERA that this generation can serve
//   Client, Transport, UnauthorizedError   the SDK's classes
//   signer            the SDK's function that makes a signature of a client with a key
//   clientOptions     (era) => second argument of `new Client`
//   callTool          (client, params, options) => promise of the result
//   onRequest, onNotification   (client, method, handler), which install a handler
//   finishAuth        (transport, redirect parameters) => promise
//   protocolVersion   (client, transport) => the negotiated version
//
// The first session signs in, the others are opened together with its tokens. Whatever fails ends the run with an
// `error` event and status 1. The one exception: while HOLD is on, a failed call or close is reported with its session
// and the run goes on, since there the failure may be what the test wants to see.

import { endure, listen } from "./endure.mjs";
import { CAPABILITIES, equip, tour } from "./features.mjs";
import { Orders, describe, emit } from "./protocol.mjs";
import { MemoryProvider } from "./provider.mjs";
import { fillIn, readSettings } from "./settings.mjs";

/** Runs one client from sign-in to `done`, and ends the process. */
export async function drive(sdk) {
  try {
    await run(sdk);
    emit("done");
    process.exit(0);
  } catch (error) {
    emit("error", { message: describe(error) });
    process.exit(1);
  }
}

async function run(sdk) {
  const settings = readSettings();
  if (!sdk.eras.includes(settings.era)) throw new Error(`${sdk.name} cannot negotiate ERA=${settings.era}`);
  const orders = new Orders();
  const provider = new MemoryProvider(settings.redirectUri, sdk.name, settings.clientMetadataUrl, signature(sdk, settings));

  const others = Array.from({ length: settings.sessions - 1 }, (_, index) => index + 1);
  const first = await signIn(sdk, settings, provider, orders);
  let sessions = [first, ...(await Promise.all(others.map((number) => open(sdk, settings, provider, number))))];

  if (settings.endure) {
    await endure(sdk, sessions, settings.endure, orders);
    await Promise.all(sessions.map((session) => close(session, settings)));
    return;
  }
  for (;;) {
    await Promise.all(sessions.map(listTools));
    if (settings.features) await Promise.all(sessions.map((session) => tour(sdk, session)));
    else await Promise.all(sessions.map((session) => callAll(session, settings)));
    if (!settings.hold || !(await obey(sessions, settings, orders))) break;
    // The server is not told: it may have forgotten these sessions, or be another process by now.
    await Promise.all(sessions.map(({ client }) => client.close()));
    sessions = await Promise.all(sessions.map(({ number }) => open(sdk, settings, provider, number)));
  }
  await Promise.all(sessions.map((session) => close(session, settings)));
}

/** How a client with a key shows who it is (`private_key_jwt`). */
function signature(sdk, { clientMetadataUrl, privateKey }) {
  if (privateKey === undefined) return undefined;
  return sdk.signer({ issuer: clientMetadataUrl, subject: clientMetadataUrl, privateKey, alg: "ES256" });
}

/** Opens session 0; if the server wants a sign-in, has it done and tries once more. */
async function signIn(sdk, settings, provider, orders) {
  const attempt = prepare(sdk, settings, provider, 0);
  try {
    await attempt.client.connect(attempt.transport);
    return announce(sdk, attempt, 0);
  } catch (error) {
    if (!(error instanceof sdk.UnauthorizedError)) throw error;
  }
  emit("authorize", { url: String(provider.authorizationUrl) });
  const order = await orders.next();
  if (typeof order?.redirect !== "string") throw new Error("an authorize event is answered by a line with a redirect");
  // The transport that met the challenge finishes the sign-in: it knows which metadata the challenge named. It is
  // spent afterwards, as a client is after a failed connect.
  await sdk.finishAuth(attempt.transport, provider.acceptRedirect(order.redirect));
  return open(sdk, settings, provider, 0);
}

async function open(sdk, settings, provider, number) {
  const session = prepare(sdk, settings, provider, number);
  await session.client.connect(session.transport);
  return announce(sdk, session, number);
}

function prepare(sdk, settings, provider, number) {
  const options = sdk.clientOptions(settings.era);
  if (settings.features) options.capabilities = CAPABILITIES;
  const client = new sdk.Client({ name: sdk.name, version: "0.0.0" }, options);
  const heard = settings.features
    ? equip(sdk, client)
    : settings.endure && listen(sdk, client, `${settings.endure}-${number}`);
  const transport = new sdk.Transport(settings.url, { authProvider: provider });
  return { client, transport, heard };
}

function announce(sdk, { client, transport, heard }, number) {
  // Failures of the stream for server messages end up here and nowhere else.
  client.onerror = (error) => console.error(`${sdk.name}, session ${number}: ${describe(error)}`);
  emit("session", {
    session: number,
    protocol: sdk.protocolVersion(client, transport),
    server: client.getServerVersion()?.name ?? null,
  });
  return { number, client, transport, heard };
}

async function listTools({ number, client }) {
  let count = 0;
  let cursor;
  do {
    const page = await client.listTools(cursor === undefined ? undefined : { cursor });
    count += page.tools.length;
    cursor = page.nextCursor;
  } while (cursor !== undefined);
  emit("tools", { session: number, count });
}

async function callAll(session, settings) {
  await Promise.all(Array.from({ length: settings.calls }, (_, call) => callOne(session, settings, call)));
}

async function callOne({ number, client }, settings, call) {
  let result;
  try {
    result = await client.callTool({ name: settings.tool, arguments: fillIn(settings.arguments, number, call) });
  } catch (error) {
    if (!settings.hold) throw error;
    emit("error", { session: number, call, message: describe(error) });
    return;
  }
  const text = result.content.find((content) => content.type === "text")?.text ?? null;
  emit("result", { session: number, call, text, isError: result.isError ?? false });
}

/** Repeats the calls once per order, until told to end or stdin is closed; `true`: open all sessions anew. */
async function obey(sessions, settings, orders) {
  for (;;) {
    emit("ready");
    const order = await orders.next();
    if (order === undefined || order.end) return false;
    if (order.reopen) return true;
    if (!order.call) throw new Error("expected an order to call, to reopen or to end");
    await Promise.all(sessions.map((session) => callAll(session, settings)));
  }
}

async function close({ number, client, transport }, settings) {
  try {
    // Not refreshed by the SDK: with an access token that has expired meanwhile this fails.
    await transport.terminateSession();
  } catch (error) {
    if (!settings.hold) throw error;
    emit("error", { session: number, message: describe(error) });
  }
  await client.close();
}
