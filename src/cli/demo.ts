import { runDemo } from "../demo/demo.ts";

/** `kloak demo`: returns the exit status. */
export async function demoCommand(): Promise<number> {
  return await runDemo();
}
