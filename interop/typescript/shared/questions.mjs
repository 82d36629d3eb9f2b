// Questions of the server to the user (elicitation), which the test answers: a `question` event
// passes each on, and an `answer` command is the user's answer to it.

import { emit } from "./protocol.mjs";

/** The capabilities of a client that passes questions on. */
export const CAPABILITIES = { elicitation: {} };

/** Installs the handler of a client that has not connected yet. One question at a time may be open. */
export function passQuestionsOn(sdk, client, number, commands) {
  sdk.onRequest(client, "elicitation/create", async ({ params }) => {
    emit("question", { session: number, message: params.message });
    const command = await commands.next();
    if (typeof command?.answer !== "string") throw new Error("expected an answer command after a question event");
    return { action: "accept", content: { nonce: command.answer } };
  });
}
