import type { SecretValue } from "./secret-value.ts";
import { marker } from "./token.ts";

const placeholderPattern = new RegExp(`${marker}[!#+\\-.0-9A-Z^_a-z~]*`, "g");

/**
 * Text that is safe to log: known secrets, also in base64 as far as their alignment gives whole characters, and the
 * random part of placeholders are taken out. A last line of defence: do not build such text in the first place.
 */
export function redact(text: string, secrets: Iterable<SecretValue> = []): string {
  let result = text;
  for (const secret of secrets) {
    for (const form of printedForms(secret)) result = result.replaceAll(form, "[redacted]");
  }
  return redactPlaceholders(result);
}

/** Takes the random part out of every placeholder in a text. */
export function redactPlaceholders(text: string): string {
  return text.replace(placeholderPattern, `${marker}[redacted]`);
}

function printedForms(secret: SecretValue): string[] {
  const bytes = secret.reveal();
  if (bytes.length === 0) return [];
  const text = bytes.toString("utf8");
  const forms = [text, JSON.stringify(text).slice(1, -1), encodeURIComponent(text)];
  for (const before of [0, 1, 2]) {
    const wholeGroups = bytes.subarray((3 - before) % 3, bytes.length - ((before + bytes.length) % 3));
    if (wholeGroups.length >= 6) forms.push(wholeGroups.toString("base64"), wholeGroups.toString("base64url"));
  }
  return forms.sort((a, b) => b.length - a.length);
}
