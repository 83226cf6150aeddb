/* Writes HTTP/2 in every way that its encoders may choose, as told by a list of numbers. */
import { Buffer } from "node:buffer";
import { huffmanCodes } from "../../src/placeholder/huffman.ts";

export type Field = readonly [name: string, value: string];

export interface Style {
  /** One number a choice; they are used round and round. */
  readonly choices: readonly number[];
}

export const preface = Buffer.from("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");

export function frame(type: number, flags: number, stream: number, payload: Buffer): Buffer {
  const head = Buffer.alloc(9);
  head.writeUIntBE(payload.length, 0, 3);
  head[3] = type;
  head[4] = flags;
  head.writeUInt32BE(stream, 5);
  return Buffer.concat([head, payload]);
}

export function huffman(text: string): Buffer {
  let bits = "";
  for (const byte of Buffer.from(text, "latin1")) {
    const { code, bits: length } = huffmanCodes[byte] ?? { code: 0, bits: 0 };
    bits += code.toString(2).padStart(length, "0");
  }
  bits = bits.padEnd(Math.ceil(bits.length / 8) * 8, "1");
  return Buffer.from((bits.match(/.{8}/g) ?? []).map((byte) => Number.parseInt(byte, 2)));
}

export function integer(high: number, most: number, value: number): Buffer {
  if (value < most) return Buffer.from([high | value]);
  const bytes = [high | most];
  let rest = value - most;
  while (rest >= 128) {
    bytes.push((rest & 0x7f) | 0x80);
    rest = Math.floor(rest / 128);
  }
  return Buffer.from([...bytes, rest]);
}

export function literal(text: string, coded: boolean): Buffer {
  const bytes = coded ? huffman(text) : Buffer.from(text, "latin1");
  return Buffer.concat([integer(coded ? 0x80 : 0, 0x7f, bytes.length), bytes]);
}

/** An encoder whose choices are given. Its table is RFC 7541's. */
export class Writer {
  readonly #choices: readonly number[];
  #used = 0;
  #table: Field[] = [];
  #limit = 4096;

  constructor({ choices }: Style) {
    this.#choices = choices;
  }

  choose(count: number): number {
    return (this.#choices[this.#used++ % this.#choices.length] ?? 0) % count;
  }

  resize(limit: number): Buffer {
    this.#limit = limit;
    this.#evict(0);
    return integer(0x20, 0x1f, limit);
  }

  field([name, value]: Field): Buffer {
    const whole = this.#table.findIndex((entry) => entry[0] === name && entry[1] === value);
    if (whole >= 0 && this.choose(4) > 0) return integer(0x80, 0x7f, whole + 62);
    const form = this.choose(3);
    const known = this.#table.findIndex((entry) => entry[0] === name);
    const index = known >= 0 && this.choose(3) > 0 ? known + 62 : 0;
    const head = form === 0 ? integer(0x40, 0x3f, index) : integer(form === 1 ? 0x10 : 0, 0x0f, index);
    const text = [head, ...(index ? [] : [literal(name, this.choose(2) > 0)]), literal(value, this.choose(3) > 0)];
    if (form === 0) {
      const size = name.length + value.length + 32;
      this.#evict(size);
      if (size <= this.#limit) this.#table.unshift([name, value]);
    }
    return Buffer.concat(text);
  }

  /** A header block in its frames; nothing follows on its stream if it ends that. */
  request(stream: number, fields: readonly Field[], ends = false): Buffer {
    const resize = this.choose(8) === 0 ? [this.resize([0, 60, 300, 4096][this.choose(4)] ?? 0)] : [];
    const block = Buffer.concat([...resize, ...fields.map((field) => this.field(field))]);
    const cuts = Array.from({ length: this.choose(3) }, () => this.choose(block.length + 1)).sort((a, b) => a - b);
    const pieces = [0, ...cuts].map((start, at) => block.subarray(start, cuts[at] ?? block.length));
    const padding = this.choose(3) === 0 ? this.choose(20) : undefined;
    const priority = this.choose(3) === 0 ? Buffer.from([0x80, 0, 0, 0, 7]) : Buffer.alloc(0);
    const first = Buffer.concat([
      ...(padding === undefined ? [] : [Buffer.from([padding])]),
      priority,
      pieces[0] ?? Buffer.alloc(0),
      Buffer.alloc(padding ?? 0, "kloak:"),
    ]);
    const flags = (ends ? 1 : 0) | (padding === undefined ? 0 : 8) | (priority.length > 0 ? 32 : 0);
    return Buffer.concat(
      pieces.map((piece, at) => {
        const last = at === pieces.length - 1 ? 4 : 0;
        return at === 0 ? frame(1, flags | last, stream, first) : frame(9, last, stream, piece);
      }),
    );
  }

  /** A DATA frame. */
  data(stream: number, text: Buffer): Buffer {
    if (this.choose(3) > 0) return frame(0, 0, stream, text);
    const padding = this.choose(20);
    return frame(0, 8, stream, Buffer.concat([Buffer.from([padding]), text, Buffer.alloc(padding, "kloak:")]));
  }

  #evict(size: number): void {
    const bytes = () => this.#table.reduce((sum, [name, value]) => sum + name.length + value.length + 32, 0);
    while (this.#table.length > 0 && bytes() + size > this.#limit) this.#table.pop();
  }
}
