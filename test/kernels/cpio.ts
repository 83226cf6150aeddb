/** The format of an initramfs: cpio, "newc" (Documentation/driver-api/early-userspace/buffer-format.rst). */

export interface ArchiveFile {
  readonly path: string;
  readonly content: Buffer;
  readonly executable?: boolean;
}

/** Folders are made for every file. Numbers are eight hexadecimal digits, names and contents padded to four bytes. */
export function cpio(files: readonly ArchiveFile[]): Buffer {
  const folders = new Set(files.flatMap(({ path }) => parents(path)));
  return Buffer.concat([
    ...[...folders].map((folder, index) => entry(index + 1, folder, 0o040755, Buffer.alloc(0))),
    ...files.map(({ path, content, executable }, index) =>
      entry(folders.size + index + 1, path, executable ? 0o100755 : 0o100644, content),
    ),
    entry(0, "TRAILER!!!", 0, Buffer.alloc(0)),
  ]);
}

function parents(path: string): string[] {
  const parts = path.split("/").slice(0, -1);
  return parts.map((_, index) => parts.slice(0, index + 1).join("/"));
}

function entry(inode: number, path: string, mode: number, content: Buffer): Buffer {
  const name = Buffer.from(`${path}\0`);
  const [owner, group, links, time, device] = [0, 0, 1, 0, 0];
  const fields = [
    ...[inode, mode, owner, group, links, time, content.length],
    ...[device, device, device, device, name.length, 0],
  ];
  const header = Buffer.from(`070701${fields.map((field) => field.toString(16).padStart(8, "0")).join("")}`);
  return Buffer.concat([padded(Buffer.concat([header, name])), padded(content)]);
}

function padded(bytes: Buffer): Buffer {
  return Buffer.concat([bytes, Buffer.alloc((4 - (bytes.length % 4)) % 4)]);
}
