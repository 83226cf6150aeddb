import type { BigIntStats } from "node:fs";

/** Which file it is, by what it is made of rather than by its name. */
export interface FileIdentity {
  readonly device: string;
  readonly inode: string;
  readonly size: number;
  readonly modifiedNs: string;
  readonly buildId: string | undefined;
}

/** A key under which what was learned of a file may be kept: another content is another key. */
export function identityKey(stat: BigIntStats): string {
  return [stat.dev, stat.ino, stat.size, stat.mtimeNs, stat.ctimeNs].join(":");
}

export function identityOf(stat: BigIntStats, buildId: string | undefined): FileIdentity {
  return {
    device: `${stat.dev}`,
    inode: `${stat.ino}`,
    size: Number(stat.size),
    modifiedNs: `${stat.mtimeNs}`,
    buildId,
  };
}
