import { lstatSync, readlinkSync } from "node:fs";
import { posix } from "node:path";

const linksMax = 40;

/**
 * A path as a process sees it whose root directory is `root`, such as /proc/PID/root: absolute symbolic links and `..`
 * stay below that root, which the kernel's own resolution through /proc/PID/root would not do. Undefined if there is no
 * such file.
 */
export function resolveInRoot(
  root: string,
  path: string,
): { readonly inside: string; readonly host: string } | undefined {
  const base = root === "/" ? "" : root.replace(/\/+$/, "");
  let pending = posix.normalize(`/${path}`).split("/").filter(Boolean);
  const done: string[] = [];
  for (let links = 0; pending.length > 0; ) {
    const [part = "", ...rest] = pending;
    pending = rest;
    if (part === ".") continue;
    if (part === "..") {
      done.pop();
      continue;
    }
    const host = `${base}/${[...done, part].join("/")}`;
    let target: string | undefined;
    try {
      if (lstatSync(host).isSymbolicLink()) target = readlinkSync(host);
    } catch {
      return undefined;
    }
    if (target === undefined) {
      done.push(part);
      continue;
    }
    links += 1;
    if (links > linksMax) return undefined;
    if (target.startsWith("/")) done.length = 0;
    pending = [...target.split("/").filter(Boolean), ...pending];
  }
  const inside = `/${done.join("/")}`;
  return { inside, host: `${base}${inside}` };
}
