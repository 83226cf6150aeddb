/** Prints a line of JSON for every program that the running kernel takes, and fails if it refuses one. */
import { figuresOf, objectFiles } from "./figures.ts";

for (const object of objectFiles) {
  // Objects of tests that are made to be refused have a test of their own.
  if (!object.startsWith("bpf/")) continue;
  try {
    for (const figure of figuresOf(object)) console.log(`figure ${JSON.stringify(figure)}`);
  } catch (error) {
    process.exitCode = 1;
    console.log(`${object}: ${String(error)}`);
  }
}
