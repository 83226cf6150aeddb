import { KloakError } from "../errors.ts";

/** Configuration that cannot mean what it says. The message is `problem; remedy`, both naming what was written. */
export class PolicyError extends KloakError {
  readonly problem: string;
  readonly remedy: string;

  constructor(code: string, problem: string, remedy: string, options?: { cause?: unknown }) {
    super(code, `${problem}; ${remedy}`, options);
    this.name = "PolicyError";
    this.problem = problem;
    this.remedy = remedy;
  }

  /** The same, said of an object: `Secret payments/stripe, key token: …`. */
  of(object: string): PolicyError {
    return new PolicyError(this.code, `${object}: ${this.problem}`, this.remedy, { cause: this });
  }
}

/** What was written, quoted for a message; cut where it is too long to be read. */
export function quoted(text: string): string {
  return JSON.stringify(text.length > 80 ? `${text.slice(0, 77)}...` : text);
}

export function noHosts(
  remedy = "name the hosts that it may be sent to, for instance hosts: api.example.com",
): PolicyError {
  return new PolicyError("hosts-missing", "no hosts: the secret would go nowhere", remedy);
}
