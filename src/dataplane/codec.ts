/**
 * Between the bytes that the kernel keeps and values of TypeScript. Numbers are in the machine's byte order, which is
 * little-endian wherever Kloak runs; 64 bits are a bigint, characters a string without its trailing zeros, bytes a
 * Buffer. A shorter string, Buffer or array than its field is filled with zeros; a longer one throws a RangeError.
 */
export interface Codec<T> {
  readonly bytes: number;
  /** Buffers within the value are copies. */
  decode(buffer: Buffer, offset?: number): T;
  /** Into `buffer` at `offset`, or into a new Buffer. */
  encode(value: T, buffer?: Buffer, offset?: number): Buffer;
}

function codec<T>(
  bytes: number,
  decode: (buffer: Buffer, offset: number) => T,
  write: (value: T, buffer: Buffer, offset: number) => void,
): Codec<T> {
  return {
    bytes,
    decode: (buffer, offset = 0) => decode(buffer, offset),
    encode: (value, buffer = Buffer.alloc(bytes), offset = 0) => {
      write(value, buffer, offset);
      return buffer;
    },
  };
}

function room(kind: string, length: number, limit: number): void {
  if (length > limit) throw new RangeError(`${kind} of ${length} does not fit into ${limit}`);
}

export const u8: Codec<number> = codec(
  1,
  (buffer, at) => buffer.readUInt8(at),
  (value, buffer, at) => buffer.writeUInt8(value, at),
);
export const u16: Codec<number> = codec(
  2,
  (buffer, at) => buffer.readUInt16LE(at),
  (value, buffer, at) => buffer.writeUInt16LE(value, at),
);
export const u32: Codec<number> = codec(
  4,
  (buffer, at) => buffer.readUInt32LE(at),
  (value, buffer, at) => buffer.writeUInt32LE(value, at),
);
export const i32: Codec<number> = codec(
  4,
  (buffer, at) => buffer.readInt32LE(at),
  (value, buffer, at) => buffer.writeInt32LE(value, at),
);
export const u64: Codec<bigint> = codec(
  8,
  (buffer, at) => buffer.readBigUInt64LE(at),
  (value, buffer, at) => buffer.writeBigUInt64LE(value, at),
);

export function bytes(count: number): Codec<Buffer> {
  return codec(
    count,
    (buffer, at) => Buffer.from(buffer.subarray(at, at + count)),
    (value, buffer, at) => {
      room("a Buffer", value.length, count);
      buffer.fill(0, at, at + count).set(value, at);
    },
  );
}

/** UTF-8, as names of processes are what their authors made them; a field that is full has no zero at its end. */
export function text(count: number): Codec<string> {
  return codec(
    count,
    (buffer, at) => {
      const end = buffer.indexOf(0, at);
      return buffer.toString("utf8", at, end < 0 || end > at + count ? at + count : end);
    },
    (value, buffer, at) => {
      room("a string", Buffer.byteLength(value), count);
      buffer.fill(0, at, at + count).write(value, at, "utf8");
    },
  );
}

export function list<T>(item: Codec<T>, count: number): Codec<readonly T[]> {
  return codec<readonly T[]>(
    item.bytes * count,
    (buffer, at) => Array.from({ length: count }, (_, index) => item.decode(buffer, at + index * item.bytes)),
    (value, buffer, at) => {
      room("an array", value.length, count);
      buffer.fill(0, at, at + item.bytes * count);
      for (const [index, element] of value.entries()) item.encode(element, buffer, at + index * item.bytes);
    },
  );
}

export type Fields<T> = { readonly [Name in keyof T]-?: readonly [offset: number, codec: Codec<T[Name]>] };

/** A struct of C. Its padding is written as zeros, so that the value can be the key of a map. */
export function struct<T extends object>(count: number, fields: Fields<T>): Codec<T> & { readonly fields: Fields<T> } {
  const names = Object.keys(fields) as (keyof T)[];
  const whole = codec<T>(
    count,
    (buffer, at) => {
      const value: Partial<T> = {};
      for (const name of names) value[name] = fields[name][1].decode(buffer, at + fields[name][0]);
      return value as T;
    },
    (value, buffer, at) => {
      buffer.fill(0, at, at + count);
      for (const name of names) fields[name][1].encode(value[name], buffer, at + fields[name][0]);
    },
  );
  return { ...whole, fields };
}
