// The line protocol between a client and the test that drives it: one JSON object a line, events on
// stdout, commands on stdin. Diagnostics belong on stderr, so that stdout holds only events.

import { createInterface } from "node:readline";

/** Prints one event. */
export function emit(event, fields = {}) {
  process.stdout.write(`${JSON.stringify({ event, ...fields })}\n`);
}

/** The commands on stdin, in their order. */
export class Commands {
  #lines;

  constructor(input = process.stdin) {
    // The iterator buffers from its creation on, so that an early line is not lost.
    this.#lines = createInterface({ input, crlfDelay: Infinity })[Symbol.asyncIterator]();
  }

  /** The next command, or `undefined` once stdin is closed. */
  async next() {
    const { value, done } = await this.#lines.next();
    return done ? undefined : JSON.parse(value);
  }
}

/** Lets one function at a time wait for a notification of the server. */
export class NotificationSignal {
  #notify = () => {};

  /** Wakes the waiting function. */
  notify() {
    this.#notify();
  }

  /**
   * Waits until `condition` holds after a notification. Returns false if it does not hold within
   * `milliseconds`.
   */
  async until(condition, milliseconds) {
    const deadline = Date.now() + milliseconds;
    while (!condition()) {
      const left = deadline - Date.now();
      if (left <= 0) return false;
      await new Promise((resolve) => {
        const timer = setTimeout(resolve, left);
        this.#notify = () => {
          clearTimeout(timer);
          resolve();
        };
      });
    }
    return true;
  }
}

/**
 * Describes an error and its causes on one line; `fetch` puts the reason of a failure into its
 * `cause`.
 */
export function describe(error) {
  const parts = [];
  for (let current = error; current !== undefined && current !== null && parts.length < 5; current = current.cause) {
    parts.push(current instanceof Error ? `${current.name}: ${current.message || (current.code ?? "")}` : String(current));
  }
  return parts.join("; caused by ");
}
