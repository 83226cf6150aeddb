/**
 * An error that a person reads: the message names the object and the next step. `code` is for callers that branch and
 * for machine-readable output; it never changes once released.
 */
export class KloakError extends Error {
  readonly code: string;

  constructor(code: string, message: string, options?: { cause?: unknown }) {
    super(message, options);
    this.name = "KloakError";
    this.code = code;
  }
}
