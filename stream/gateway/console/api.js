// The gateway's HTTP API: JSON in and out, errors as Problem, and the token where the gateway asks for one.

const TOKEN = "intentrec-token";
const TIMEOUT_MS = 10000;

/** The gateway refused a request: `type` after urn:intentrec:problem:, `status`, and `detail` in one line. */
export class Problem extends Error {
  constructor(status, body) {
    super(body.detail ?? body.title ?? `status ${status}`);
    this.status = status;
    this.type = String(body.type ?? "").replace("urn:intentrec:problem:", "");
    this.reason = body.reason;
  }

  /** Whether the same request can succeed later. */
  get isPassing() {
    return this.status === 429 || this.status >= 500;
  }
}

/** Nobody answered. */
export class Unreachable extends Error {
  isPassing = true;
}

/** Headers of every request. */
export function headers() {
  const token = sessionStorage.getItem(TOKEN);
  return token ? { Authorization: `Bearer ${token}` } : {};
}

/** Keeps a token until the tab is closed. */
export function keepToken(token) {
  sessionStorage.setItem(TOKEN, token.trim());
}

/** Whose token is kept: {userId, isOperator}; null without one that can be read. The gateway checks it, this does not. */
export function tokenOwner() {
  try {
    const payload = sessionStorage.getItem(TOKEN).split(".")[1].replaceAll("-", "+").replaceAll("_", "/");
    const claims = JSON.parse(new TextDecoder().decode(Uint8Array.from(atob(payload), (char) => char.charCodeAt(0))));
    return {
      userId: claims.sub,
      isOperator: String(claims.scope ?? "")
        .split(" ")
        .includes("intentrec:operator"),
    };
  } catch {
    return null;
  }
}

/** Calls `listener` whenever the gateway asks for a token, or for another one. */
export function onTokenNeeded(listener) {
  addEventListener("intentrec-token-needed", listener);
}

/** The answer to GET, or to POST where there is a body. Raises: Problem, Unreachable. */
export async function request(path, { body, signal } = {}) {
  const timeout = AbortSignal.timeout(TIMEOUT_MS);
  let response;
  try {
    response = await fetch(path, {
      method: body === undefined ? "GET" : "POST",
      headers: body === undefined ? headers() : { ...headers(), "Content-Type": "application/json" },
      body: body === undefined ? undefined : JSON.stringify(body),
      cache: "no-store",
      signal: signal ? AbortSignal.any([signal, timeout]) : timeout,
    });
    if (response.ok) return await response.json();
  } catch (error) {
    if (signal?.aborted) throw error;
    throw new Unreachable("the gateway does not answer", { cause: error });
  }
  throw await problemOf(response);
}

/** The problem that a response tells. */
export async function problemOf(response) {
  const body = await response.json().catch(() => ({}));
  const problem = new Problem(response.status, body);
  if (response.status === 401) dispatchEvent(new CustomEvent("intentrec-token-needed", { detail: problem }));
  return problem;
}

/** A path with its parts and parameters encoded: path`/v1/users/${id}/rows`. */
export function path(texts, ...values) {
  return texts.reduce((whole, text, at) => whole + encodeURIComponent(values[at - 1]) + text);
}
