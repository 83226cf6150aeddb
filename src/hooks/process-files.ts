import { KloakError } from "../errors.ts";
import type { FileReference } from "./discover.ts";
import { procText } from "./small-file.ts";

/** A file of which a process has mapped code. */
export interface MappedFile extends FileReference {
  /** Opens that very file, whatever mount namespace it is in and even if it has been deleted. */
  readonly path: string;
  /** As the process sees it; may no longer be there. */
  readonly name: string;
  readonly device: string;
  readonly inode: string;
  readonly deleted: boolean;
}

const mapping = /^([0-9a-f]+)-([0-9a-f]+) ..x. [0-9a-f]+ ([0-9a-f]+:[0-9a-f]+) (\d+) +(\/.*)$/;
const filesMax = 4096;
/** 65,530 mappings (vm.max_map_count) with names of 150 bytes; names may be of 4,096. */
const mapsMax = 16 << 20;

/** Parses /proc/PID/maps: the files mapped executable, each once. */
export function parseMaps(text: string, directory: string): MappedFile[] {
  const files = new Map<string, MappedFile>();
  for (const line of text.split("\n")) {
    const match = mapping.exec(line);
    if (match === null || files.size >= filesMax) continue;
    const [, start = "", end = "", device = "", inode = "", shown = ""] = match;
    const key = `${device}:${inode}`;
    if (inode === "0" || files.has(key)) continue;
    const deleted = shown.endsWith(" (deleted)");
    const name = (deleted ? shown.slice(0, -" (deleted)".length) : shown).replace(/\\012/g, "\n");
    // map_files names ranges without leading zeros.
    const range = `${start.replace(/^0+(?=.)/, "")}-${end.replace(/^0+(?=.)/, "")}`;
    files.set(key, { path: `${directory}/map_files/${range}`, name, device, inode, deleted });
  }
  return [...files.values()];
}

/**
 * The files a process has mapped executable, now. Needs CAP_SYS_ADMIN or CAP_CHECKPOINT_RESTORE to open them.
 *
 * @throws KloakError `process-gone` if there is no such process or it may not be looked at
 */
export function processFiles(pid: number): MappedFile[] {
  const directory = `/proc/${pid}`;
  try {
    return parseMaps(procText(`${directory}/maps`, mapsMax), directory);
  } catch (cause) {
    throw new KloakError("process-gone", `Process ${pid} cannot be looked at: is it running, and are you root?`, {
      cause,
    });
  }
}
