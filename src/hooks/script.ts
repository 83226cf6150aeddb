import type { Source } from "./elf/source.ts";

/** BINPRM_BUF_SIZE: the kernel looks no further. */
const lineMax = 256;
const defaultPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/**
 * Where the program that runs this script may lie, best first: the interpreter of its `#!` line, or, if that is `env`,
 * what env would find. Empty if the file is no script.
 */
export function interpreterOf(source: Source, path: string = defaultPath): string[] {
  const start = source.read(0, Math.min(lineMax, source.size)).toString("latin1");
  const match = /^#![ \t]*([^ \t\n\0]+)[ \t]*([^\n\0]*)/.exec(start);
  if (match === null) return [];
  const [, interpreter = "", rest = ""] = match;
  if (!/(^|\/)env$/.test(interpreter)) return [interpreter];
  const words = rest.trim().split(/[ \t]+/);
  // env(1): options and assignments come first; -S only says that there are several words, -u and -C take one more.
  while (words.length > 0 && /^-|=/.test(words[0] ?? "")) {
    const word = words.shift();
    if (word === "-u" || word === "-C") words.shift();
  }
  const [command] = words;
  if (command === undefined || command === "") return [interpreter];
  if (command.includes("/")) return [command];
  return path.split(":").map((directory) => `${directory === "" ? "." : directory}/${command}`);
}
