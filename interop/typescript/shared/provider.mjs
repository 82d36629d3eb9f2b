// The host's part of a sign-in, the same for both SDK generations: the storage of tokens and
// registration, and the browser. The SDK does discovery, registration, PKCE, code exchange and
// refresh.

import { randomBytes } from "node:crypto";

/**
 * An `OAuthClientProvider` that keeps everything in memory.
 *
 * All sessions of a process share one, as the connections of a host application do. It opens no
 * browser. It stores the address, and its user passes it on.
 */
export class MemoryProvider {
  /** The URL of the client's metadata document; `undefined` if the client registers itself. */
  clientMetadataUrl;
  /**
   * Adds an assertion to a request, for a client with a key. The SDK's default applies if it is
   * `undefined`.
   */
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
    if (this.#verifier === undefined) throw new Error("no authorization is in progress");
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

  /** The address that the user must visit. */
  get authorizationUrl() {
    if (this.#authorizationUrl === undefined) throw new Error("the SDK has requested no authorization");
    return this.#authorizationUrl;
  }

  /**
   * The parameters of the redirect at the end of the sign-in.
   *
   * Throws unless the redirect goes to the redirect URI, has the `state` of the current request
   * (both SDK generations leave this check to the host), and has a code.
   */
  acceptRedirect(redirect) {
    const url = new URL(redirect);
    const expected = new URL(this.#redirectUrl);
    if (url.origin !== expected.origin || url.pathname !== expected.pathname) {
      throw new Error(`the redirect goes to ${url.origin}${url.pathname}, not to the redirect URI`);
    }
    const parameters = url.searchParams;
    if (this.#state === undefined || parameters.get("state") !== this.#state) {
      throw new Error("the redirect does not have the state of this authorization");
    }
    this.#state = undefined;
    if (parameters.has("error")) {
      throw new Error(`authorization refused: ${parameters.get("error")} (${parameters.get("error_description") ?? ""})`);
    }
    if (!parameters.has("code")) throw new Error("the redirect has no code");
    return parameters;
  }
}
