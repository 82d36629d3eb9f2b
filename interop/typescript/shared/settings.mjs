// The settings of a run, read once from the environment.

/**
 * The settings of this run.
 *
 * Throws an `Error` that names the variable if one is missing or invalid.
 */
export function readSettings(environment = process.env) {
  const required = (name) => {
    const value = environment[name];
    if (!value) throw new Error(`${name} is not set`);
    return value;
  };
  const count = (name, minimum) => {
    const value = Number(environment[name] ?? "1");
    if (!Number.isInteger(value) || value < minimum) throw new Error(`${name} must be a whole number of at least ${minimum}`);
    return value;
  };
  const choice = (name, values) => {
    const value = environment[name] ?? values[0];
    if (!values.includes(value)) throw new Error(`${name} must be one of ${values.join(", ")}`);
    return value;
  };
  const checksFeatures = choice("FEATURE_CHECKS", ["0", "1"]) === "1";
  const sustainedCalls = environment.SUSTAINED_CALLS;
  return {
    url: new URL(required("MCP_URL")),
    redirectUri: new URL(required("REDIRECT_URI")),
    clientMetadataUrl: environment.CLIENT_METADATA_URL || undefined,
    privateKey: environment.PRIVATE_KEY ? JSON.parse(environment.PRIVATE_KEY) : undefined,
    sessions: count("SESSIONS", 1),
    calls: count("CALLS", 0),
    tool: checksFeatures || sustainedCalls ? undefined : required("TOOL"),
    arguments: JSON.parse(environment.ARGUMENTS ?? "{}"),
    era: choice("ERA", ["legacy", "auto", "pin"]),
    checksFeatures,
    sustainedCalls,
    passesQuestionsOn: choice("QUESTIONS", ["0", "1"]) === "1",
    isInteractive: choice("INTERACTIVE", ["0", "1"]) === "1",
  };
}

/**
 * A copy of `value` in which the numbers replace `{session}` and `{call}`, in every string at any
 * depth.
 */
export function fillIn(value, session, call) {
  if (typeof value === "string") {
    return value.replaceAll("{session}", String(session)).replaceAll("{call}", String(call));
  }
  if (Array.isArray(value)) return value.map((item) => fillIn(item, session, call));
  if (value !== null && typeof value === "object") {
    return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, fillIn(item, session, call)]));
  }
  return value;
}
