// What a run is to do, read once from the environment.

/**
 * The settings of this run.
 *
 * Throws an `Error` that names the variable when one is missing or is not what it should be.
 */
export function readSettings(environment = process.env) {
  const required = (name) => {
    const value = environment[name];
    if (!value) throw new Error(`${name} is not set`);
    return value;
  };
  const count = (name, least) => {
    const value = Number(environment[name] ?? "1");
    if (!Number.isInteger(value) || value < least) throw new Error(`${name} must be a whole number of at least ${least}`);
    return value;
  };
  const choice = (name, values) => {
    const value = environment[name] ?? values[0];
    if (!values.includes(value)) throw new Error(`${name} must be one of ${values.join(", ")}`);
    return value;
  };
  const features = choice("FEATURES", ["0", "1"]) === "1";
  const endure = environment.ENDURE;
  return {
    url: new URL(required("MCP_URL")),
    redirectUri: new URL(required("REDIRECT_URI")),
    clientMetadataUrl: environment.CLIENT_METADATA_URL || undefined,
    privateKey: environment.PRIVATE_KEY ? JSON.parse(environment.PRIVATE_KEY) : undefined,
    sessions: count("SESSIONS", 1),
    calls: count("CALLS", 0),
    tool: features || endure ? undefined : required("TOOL"),
    arguments: JSON.parse(environment.ARGUMENTS ?? "{}"),
    era: choice("ERA", ["legacy", "auto"]),
    features,
    endure,
    hold: choice("HOLD", ["0", "1"]) === "1",
  };
}

/** A copy of `value` in which `{session}` and `{call}` are replaced by the numbers, in every string at any depth. */
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
