import { KloakError } from "../errors.ts";

/** What the API server refused. `code` is `kube-` and the reason of its Status, as in `kube-NotFound`. */
export class KubeError extends KloakError {
  /** HTTP status; 0 if there was no answer. */
  readonly status: number;
  readonly reason: string;
  /** Seconds after which the server wants to be asked again, if it said so. */
  readonly retryAfter: number | undefined;

  constructor(status: number, reason: string, message: string, options?: { cause?: unknown; retryAfter?: number }) {
    super(`kube-${reason}`, message, options);
    this.name = "KubeError";
    this.status = status;
    this.reason = reason;
    this.retryAfter = options?.retryAfter;
  }
}

/** Whether an error is the API server's answer with this HTTP status. */
export function hasStatus(error: unknown, status: number): error is KubeError {
  return error instanceof KubeError && error.status === status;
}

/** How long the server wants to be left alone, in milliseconds; 0 if it does not say, five minutes at most. */
export function retryAfterMs(error: unknown): number {
  const seconds = error instanceof KubeError ? (error.retryAfter ?? 0) : 0;
  return Math.min(Math.max(seconds, 0), 300) * 1000;
}
