// The line protocol between a client and the program that drives it: one JSON object a line, events on stdout,
// orders on stdin. Diagnostics belong on stderr, so that stdout holds events and nothing else.

import { createInterface } from "node:readline";

/** Prints one event. */
export function emit(event, fields = {}) {
  process.stdout.write(`${JSON.stringify({ event, ...fields })}\n`);
}

/** The orders on stdin, in the order in which they came. */
export class Orders {
  #lines;

  constructor(input = process.stdin) {
    // The iterator buffers from its creation on: a line that arrives before anybody asks for it is not lost.
    this.#lines = createInterface({ input, crlfDelay: Infinity })[Symbol.asyncIterator]();
  }

  /** The next order, or `undefined` once stdin is closed. */
  async next() {
    const { value, done } = await this.#lines.next();
    return done ? undefined : JSON.parse(value);
  }
}

/** One line that names an error and what caused it; `fetch` hides the reason of a failure in its `cause`. */
export function describe(error) {
  const parts = [];
  for (let current = error; current !== undefined && current !== null && parts.length < 5; current = current.cause) {
    parts.push(current instanceof Error ? `${current.name}: ${current.message || (current.code ?? "")}` : String(current));
  }
  return parts.join("; caused by ");
}
