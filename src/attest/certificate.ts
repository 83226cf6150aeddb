import { connect } from "node:tls";
import type { SecureContext, TLSSocket } from "node:tls";
import type { Clock } from "./clock.ts";
import type { Failure, FailureReason } from "./verdict.ts";

export interface Dial {
  readonly address: string;
  readonly port: number;
  /** For SNI and the certificate; null: the certificate must name the address, and no SNI is sent. */
  readonly name: string | null;
  readonly context: SecureContext;
  readonly timeoutMs: number;
}

export type Outcome = { readonly validToMs: number } | { readonly failure: Failure };

/**
 * Connects to that very address and port, in the network namespace of this process, and verifies what it presents: the
 * chain up to the context's roots, its validity, its purpose, and the name.
 */
export async function attestCertificate(dial: Dial, clock: Clock, signal: AbortSignal): Promise<Outcome> {
  const { address, port, name, context } = dial;
  const { promise, resolve } = Promise.withResolvers<Outcome>();
  const done = new AbortController();
  const socket = connect({
    host: address,
    port,
    secureContext: context,
    // Both that are offered to HTTP servers; some close connections that offer none.
    ALPNProtocols: ["h2", "http/1.1"],
    rejectUnauthorized: true,
    checkServerIdentity: () => undefined,
    ...(name === null ? {} : { servername: name }),
  });
  socket.once("secureConnect", () => resolve(identify(socket, dial)));
  socket.once("error", (error: NodeJS.ErrnoException) => resolve({ failure: explain(error) }));
  socket.once("close", () => resolve(failed("no-tls", "the connection was closed during the handshake", true)));
  const abort = (): void => resolve(failed("unreachable", "given up", true));
  signal.addEventListener("abort", abort, { once: true });
  if (signal.aborted) abort();
  const late = clock.sleep(dial.timeoutMs, done.signal).then(() => {
    if (!done.signal.aborted) resolve(failed("timeout", `no answer within ${dial.timeoutMs} ms`, true));
  });
  try {
    return await promise;
  } finally {
    signal.removeEventListener("abort", abort);
    done.abort();
    await late;
    // A destroyed socket may still report: nobody listens any more.
    socket.on("error", () => undefined);
    socket.destroy();
  }
}

/** The chain is verified already; the name is checked against subject alternative names only, never the common name. */
function identify(socket: TLSSocket, { name, address }: Dial): Outcome {
  const certificate = socket.getPeerX509Certificate();
  if (!socket.authorized || certificate === undefined) return failed("bad-certificate", "no certificate", false);
  const matched =
    name === null
      ? certificate.checkIP(address)
      : certificate.checkHost(name, {
          subject: "never",
          wildcards: true,
          partialWildcards: false,
          multiLabelWildcards: false,
        });
  if (matched === undefined) {
    const shown = (certificate.subjectAltName ?? "no alternative names").slice(0, 200);
    return failed("wrong-name", `the certificate is for ${shown}`, false);
  }
  return { validToMs: Date.parse(certificate.validTo) };
}

function failed(reason: FailureReason, detail: string, transient: boolean): Outcome {
  return { failure: { reason, detail, transient } };
}

/** Codes of X509_verify_cert as Node names them. */
const verification: Readonly<Record<string, FailureReason>> = {
  CERT_HAS_EXPIRED: "expired",
  CERT_NOT_YET_VALID: "not-yet-valid",
  DEPTH_ZERO_SELF_SIGNED_CERT: "self-signed",
  SELF_SIGNED_CERT_IN_CHAIN: "untrusted",
  UNABLE_TO_GET_ISSUER_CERT: "untrusted",
  UNABLE_TO_GET_ISSUER_CERT_LOCALLY: "untrusted",
  UNABLE_TO_VERIFY_LEAF_SIGNATURE: "untrusted",
  CERT_UNTRUSTED: "untrusted",
};

/** Of the network, not of the other side. */
const network = /^(ECONN|EHOST|ENET|EPIPE|ETIMEDOUT|EADDR|EACCES|EPERM|EMFILE|ENFILE|EINVAL)/;

function explain(error: NodeJS.ErrnoException): Failure {
  const code = error.code ?? "";
  const detail = error.message.replace(/\s+/g, " ").slice(0, 200);
  const reason = verification[code];
  if (reason !== undefined) return { reason, detail, transient: false };
  // "Client network socket disconnected before secure TLS connection was established" has ECONNRESET too.
  if (network.test(code)) return { reason: "unreachable", detail, transient: true };
  if (/^(ERR_SSL|EPROTO)/.test(code)) return { reason: "no-tls", detail, transient: true };
  return { reason: "bad-certificate", detail, transient: false };
}
