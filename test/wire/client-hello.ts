/** ClientHello messages (RFC 8446 4.1.2) and TLS records, well-formed or not. */

export interface Extension {
  readonly type: number;
  readonly data: Uint8Array;
}

export function uint(bytes: number, value: number): Buffer {
  const buffer = Buffer.alloc(bytes);
  buffer.writeUIntBE(value, 0, bytes);
  return buffer;
}

export function vector(bytes: number, ...parts: readonly Uint8Array[]): Buffer {
  const body = Buffer.concat(parts);
  return Buffer.concat([uint(bytes, body.length), body]);
}

export function serverName(...names: readonly (string | Uint8Array)[]): Extension {
  const entries = names.map((name) => Buffer.concat([uint(1, 0), vector(2, Buffer.from(name as string))]));
  return { type: 0, data: vector(2, ...entries) };
}

export const encryptedHello: Extension = { type: 0xfe0d, data: Buffer.alloc(40, 7) };
export const earlyData: Extension = { type: 42, data: Buffer.alloc(0) };
/** A key share of post-quantum size: the message does not fit into one segment. */
export const largeKeyShare: Extension = { type: 51, data: Buffer.alloc(1300, 3) };
export const supportedVersions: Extension = { type: 43, data: Buffer.from([2, 3, 4]) };

export function clientHello(extensions: readonly Extension[] | undefined, sessionBytes = 32): Buffer {
  const fields = [
    uint(2, 0x0303),
    Buffer.alloc(32, 9),
    vector(1, Buffer.alloc(sessionBytes, 5)),
    vector(2, Buffer.from([0x13, 1, 0x13, 2, 0x13, 3])),
    vector(1, Buffer.from([0])),
  ];
  if (extensions) {
    fields.push(vector(2, ...extensions.map(({ type, data }) => Buffer.concat([uint(2, type), vector(2, data)]))));
  }
  return handshake(1, Buffer.concat(fields));
}

export function handshake(type: number, body: Uint8Array): Buffer {
  return Buffer.concat([uint(1, type), vector(3, body)]);
}

export function record(type: number, fragment: Uint8Array): Buffer {
  return Buffer.concat([uint(1, type), uint(2, 0x0303), vector(2, fragment)]);
}

export const changeCipherSpec: Buffer = record(20, Buffer.from([1]));

/** What a ClientHello message says about its server, read another way than the kernel does: whole, front to back. */
export function readServerName(message: Buffer): { readonly sni: string; readonly name?: string } {
  let encrypted = false;
  let name: string | undefined;
  let usable = true;
  let named = false;
  const cursor = (buffer: Buffer) => {
    let at = 0;
    return {
      get left() {
        return buffer.length - at;
      },
      take(bytes: number): Buffer {
        if (bytes > buffer.length - at) throw new RangeError("cut");
        at += bytes;
        return buffer.subarray(at - bytes, at);
      },
      vector(bytes: number): Buffer {
        return this.take(this.take(bytes).readUIntBE(0, bytes));
      },
    };
  };
  try {
    const body = cursor(message.subarray(4));
    body.take(34);
    body.vector(1);
    body.vector(2);
    body.vector(1);
    if (body.left === 0) return { sni: "none" };
    const extensions = cursor(body.vector(2));
    if (body.left > 0) throw new RangeError("trailing bytes");
    while (extensions.left > 0) {
      const type = extensions.take(2).readUInt16BE();
      const bytes = extensions.take(2).readUInt16BE();
      if (bytes > extensions.left) throw new RangeError("cut");
      /* Known from its header alone, even if it makes no sense later on. */
      if (type === 0xfe0d) encrypted = true;
      const data = extensions.take(bytes);
      if (type !== 0) continue;
      if (named) throw new RangeError("two names");
      named = true;
      const outer = cursor(data);
      const list = cursor(outer.vector(2));
      if (outer.left > 0 || list.take(1)[0] !== 0) throw new RangeError("not one host name");
      name = list.vector(2).toString("latin1").toLowerCase();
      if (list.left > 0) throw new RangeError("two names");
      if (name.endsWith(".")) name = name.slice(0, -1);
      const labels = name.split(".");
      if (name.length > 253 || labels.some((label) => !/^[a-z0-9_-]+$/.test(label)))
        throw new RangeError("no host name");
    }
  } catch (error) {
    if (!(error instanceof RangeError)) throw error;
    usable = false;
  }
  if (encrypted) return { sni: "encrypted" };
  if (!usable) return { sni: "unusable" };
  return name === undefined ? { sni: "none" } : { sni: "name", name };
}
