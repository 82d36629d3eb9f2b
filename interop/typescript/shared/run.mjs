// The course of a run, the same for both SDK generations. An adapter provides each generation:
//
//   name              the client's name
//   eras              the values of ERA that this generation supports
//   Client, Transport, UnauthorizedError   the SDK's classes
//   createSigner      the SDK's function that creates the signer of a client with a key
//   clientOptions     (era) => second argument of `new Client`
//   callTool          (client, params, options) => promise of the result
//   onRequest, onNotification   (client, method, handler), which install a handler
//   finishAuth        (transport, redirect parameters) => promise
//   protocolVersion   (client, transport) => the negotiated version
//
// The first session signs in, and the others open together with its tokens. A failure ends the run
// with an `error` event and status 1. There is one exception: with INTERACTIVE, the run reports a
// failed call or close with its session and continues, since the test may expect the failure.

import { CAPABILITIES, checkFeatures, installHandlers } from "./feature-checks.mjs";
import { Commands, describe, emit } from "./protocol.mjs";
import { MemoryProvider } from "./provider.mjs";
import { CAPABILITIES as QUESTION_CAPABILITIES, passQuestionsOn } from "./questions.mjs";
import { fillIn, readSettings } from "./settings.mjs";
import { callUntilCommand, reportNotifications } from "./sustained-calls.mjs";

/** Runs one client from sign-in to `done`, and ends the process. */
export async function runClient(sdk) {
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
  const commands = new Commands();
  const provider = new MemoryProvider(settings.redirectUri, sdk.name, settings.clientMetadataUrl, signer(sdk, settings));

  const others = Array.from({ length: settings.sessions - 1 }, (_, index) => index + 1);
  const first = await signIn(sdk, settings, provider, commands);
  const sessions = [first, ...(await Promise.all(others.map((number) => open(sdk, settings, provider, commands, number))))];

  if (settings.sustainedCalls) {
    await callUntilCommand(sdk, sessions, settings.sustainedCalls, commands);
  } else {
    await Promise.all(sessions.map(listTools));
    const round = (session) => (settings.checksFeatures ? checkFeatures(sdk, session) : callAll(session, settings));
    await Promise.all(sessions.map(round));
    if (settings.isInteractive) await repeatOnCommand(sessions, round, commands);
  }
  await Promise.all(sessions.map((session) => close(session, settings)));
}

/** The function that signs assertions (`private_key_jwt`), for a client with a key. */
function signer(sdk, { clientMetadataUrl, privateKey }) {
  if (privateKey === undefined) return undefined;
  return sdk.createSigner({ issuer: clientMetadataUrl, subject: clientMetadataUrl, privateKey, alg: "ES256" });
}

/** Opens session 0. If the server requires a sign-in, signs in and tries once more. */
async function signIn(sdk, settings, provider, commands) {
  const attempt = prepare(sdk, settings, provider, commands, 0);
  try {
    await attempt.client.connect(attempt.transport);
    return reportSession(sdk, attempt, 0);
  } catch (error) {
    if (!(error instanceof sdk.UnauthorizedError)) throw error;
  }
  emit("authorize", { url: String(provider.authorizationUrl) });
  const command = await commands.next();
  if (typeof command?.redirect !== "string") throw new Error("expected a redirect command after an authorize event");
  // The transport that got the challenge finishes the sign-in, since it knows the metadata that the
  // challenge named. It cannot be used afterwards, and neither can a client after a failed connect.
  await sdk.finishAuth(attempt.transport, provider.acceptRedirect(command.redirect));
  return open(sdk, settings, provider, commands, 0);
}

async function open(sdk, settings, provider, commands, number) {
  const session = prepare(sdk, settings, provider, commands, number);
  await session.client.connect(session.transport);
  return reportSession(sdk, session, number);
}

function prepare(sdk, settings, provider, commands, number) {
  const options = sdk.clientOptions(settings.era);
  if (settings.checksFeatures) options.capabilities = CAPABILITIES;
  else if (settings.passesQuestionsOn) options.capabilities = QUESTION_CAPABILITIES;
  const client = new sdk.Client({ name: sdk.name, version: "0.0.0" }, options);
  const received = settings.checksFeatures
    ? installHandlers(sdk, client)
    : settings.sustainedCalls && reportNotifications(sdk, client, `${settings.sustainedCalls}-${number}`);
  if (settings.passesQuestionsOn) passQuestionsOn(sdk, client, number, commands);
  const transport = new sdk.Transport(settings.url, { authProvider: provider });
  return { client, transport, received };
}

function reportSession(sdk, { client, transport, received }, number) {
  // Nothing else reports failures of the GET stream.
  client.onerror = (error) => console.error(`${sdk.name}, session ${number}: ${describe(error)}`);
  emit("session", {
    session: number,
    protocol: sdk.protocolVersion(client, transport),
    server: client.getServerVersion()?.name ?? null,
  });
  return { number, client, transport, received };
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
    if (!settings.isInteractive) throw error;
    emit("error", { session: number, call, message: describe(error) });
    return;
  }
  const text = result.content.find((content) => content.type === "text")?.text ?? null;
  emit("result", { session: number, call, text, isError: result.isError ?? false });
}

/** Repeats the calls or the checks once per command, until the command to end or the end of stdin. */
async function repeatOnCommand(sessions, round, commands) {
  for (;;) {
    emit("ready");
    const command = await commands.next();
    if (command === undefined || command.end) return;
    if (!command.call) throw new Error("expected a command to call or to end");
    await Promise.all(sessions.map(round));
  }
}

async function close({ number, client, transport }, settings) {
  try {
    // The SDK does not refresh a token for it: with an expired access token this fails.
    await transport.terminateSession();
  } catch (error) {
    if (!settings.isInteractive) throw error;
    emit("error", { session: number, message: describe(error) });
  }
  await client.close();
}
