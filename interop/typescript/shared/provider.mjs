// The host's half of a sign-in, the same for both SDK generations: where tokens and the registration are kept, and
// what happens when the SDK wants a browser. Discovery, registration, PKCE, code exchange and refresh stay with the SDK.

import { randomBytes } from "node:crypto";

/**
 * An `OAuthClientProvider` that keeps everything in memory.
 *
 * All sessions of a process share one, as the connections of a host application do. It does not open a browser:
 * it keeps the address, for whoever drives the sign-in to hand on.
 */
export class MemoryProvider {
  /** Where the document is that describes this client; `undefined`: it registers itself. */
  clientMetadataUrl;
  /** With a key: adds the signature that shows whose request it is. The SDK adds what is usual if there is none. */
  addClientAuthentication;
  #redirectUrl;
  #clientName;
  #client;
  #tokens;
  #verifier;
  #discovery;
  #state;
  #authorizationUrl;

  constructor(redirectUrl, clientName, clientMetadataUrl, addClientAuthentication) {
    this.#redirectUrl = String(redirectUrl);
    this.#clientName = clientName;
    this.clientMetadataUrl = clientMetadataUrl;
    this.addClientAuthentication = addClientAuthentication;
  }

  get redirectUrl() {
    return this.#redirectUrl;
  }

  get clientMetadata() {
    return {
      client_name: this.#clientName,
      redirect_uris: [this.#redirectUrl],
      grant_types: ["authorization_code", "refresh_token"],
      response_types: ["code"],
      token_endpoint_auth_method: "none",
    };
  }

  state() {
    this.#state = randomBytes(24).toString("base64url");
    return this.#state;
  }

  clientInformation() {
    return this.#client;
  }

  saveClientInformation(client) {
    this.#client = client;
  }

  tokens() {
    return this.#tokens;
  }

  saveTokens(tokens) {
    this.#tokens = tokens;
  }

  redirectToAuthorization(url) {
    this.#authorizationUrl = url;
  }

  saveCodeVerifier(verifier) {
    this.#verifier = verifier;
  }

  codeVerifier() {
    if (this.#verifier === undefined) throw new Error("no authorization is under way");
    return this.#verifier;
  }

  discoveryState() {
    return this.#discovery;
  }

  saveDiscoveryState(discovery) {
    this.#discovery = discovery;
  }

  invalidateCredentials(scope) {
    const all = scope === "all";
    if (all || scope === "client") this.#client = undefined;
    if (all || scope === "tokens") this.#tokens = undefined;
    if (all || scope === "verifier") this.#verifier = undefined;
    if (all || scope === "discovery") this.#discovery = undefined;
  }

  /** The address that the user has to visit. */
  get authorizationUrl() {
    if (this.#authorizationUrl === undefined) throw new Error("the SDK asked for no authorization");
    return this.#authorizationUrl;
  }

  /**
   * The parameters of the redirect that ended the user's visit.
   *
   * Throws unless it went to the redirect URI, carries the `state` of the request that is under way (both SDK
   * generations leave that comparison to the host) and brings a code.
   */
  acceptRedirect(redirect) {
    const url = new URL(redirect);
    const expected = new URL(this.#redirectUrl);
    if (url.origin !== expected.origin || url.pathname !== expected.pathname) {
      throw new Error(`the browser came back to ${url.origin}${url.pathname}, not to the redirect URI`);
    }
    const parameters = url.searchParams;
    if (this.#state === undefined || parameters.get("state") !== this.#state) {
      throw new Error("the redirect does not carry the state of this authorization");
    }
    this.#state = undefined;
    if (parameters.has("error")) {
      throw new Error(`authorization refused: ${parameters.get("error")} (${parameters.get("error_description") ?? ""})`);
    }
    if (!parameters.has("code")) throw new Error("the redirect carries no code");
    return parameters;
  }
}
