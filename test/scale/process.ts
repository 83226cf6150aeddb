/* How much memory a process has. */
import { readFileSync } from "node:fs";

export interface Memory {
  /** MB resident now, and at most so far. */
  readonly residentMb: number;
  readonly peakMb: number;
}

export function memoryOf(pid: number): Memory {
  const status = readFileSync(`/proc/${pid}/status`, "utf8");
  const mb = (name: string): number =>
    Math.round(Number(new RegExp(`^${name}:\\s+(\\d+) kB`, "m").exec(status)?.[1]) / 1024);
  return { residentMb: mb("VmRSS"), peakMb: mb("VmHWM") };
}
