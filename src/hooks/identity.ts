import { statfsSync } from "node:fs";
import type { BigIntStats } from "node:fs";

/** Which file it is, by what it is made of rather than by its name. */
export interface FileIdentity {
  readonly device: string;
  readonly inode: string;
  readonly size: number;
  readonly modifiedNs: string;
  readonly buildId: string | undefined;
  /**
   * Equal for files that the kernel takes for one where uprobes are concerned: attach once for each. A probe belongs to
   * the inode below an overlay, which the overlays of all containers of an image share; two probes there would hear
   * everything twice.
   */
  readonly inodeKey: string;
}

/** A key under which what was learned of a file may be kept: another content is another key. */
export function identityKey(stat: BigIntStats): string {
  return [stat.dev, stat.ino, stat.size, stat.mtimeNs, stat.ctimeNs].join(":");
}

/** statfs(2): OVERLAYFS_SUPER_MAGIC */
const overlayMagic = 0x794c7630;

/** Whether an opened file lies on an overlay. */
export function isOverlay(descriptor: number): boolean {
  return statfsSync(`/proc/self/fd/${descriptor}`).type === overlayMagic;
}

export function identityOf(stat: BigIntStats, overlay: boolean, buildId: string | undefined): FileIdentity {
  // An overlay passes on all of its lower file's attributes but the device. Nobody can set the time of change, so two
  // files that agree in it to the nanosecond, and in number and size, are one.
  const device = overlay ? "overlay" : `${stat.dev}`;
  return {
    inodeKey: [device, stat.ino, stat.size, stat.mtimeNs, stat.ctimeNs].join(":"),
    device: `${stat.dev}`,
    inode: `${stat.ino}`,
    size: Number(stat.size),
    modifiedNs: `${stat.mtimeNs}`,
    buildId,
  };
}
