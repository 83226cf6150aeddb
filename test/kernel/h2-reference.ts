/*
 * HTTP/2 requests as RFC 9113 and RFC 7541 have them: whole frames, whole header blocks, a dynamic table with sizes and
 * evictions, Huffman code by its bits. The kernel's parser, which has none of these, should say the same.
 */
import { Buffer } from "node:buffer";
import { huffmanCodes } from "../../src/placeholder/huffman.ts";

/** A marker, by its offset in the connection (in bits if it is coded, in the decoded text if it is in base64). */
export interface Marker {
  readonly marker: number;
  readonly base64: number | undefined;
  readonly percent: boolean;
  readonly huffman: boolean;
  readonly slot: "header" | "query" | "path" | "body";
  readonly forbidden: boolean;
  readonly header: string;
  readonly token: string;
  /** The byte with its last bit. */
  readonly last: number;
}

export interface Block {
  /** One past its last byte. */
  readonly end: number;
  readonly bad: boolean;
  readonly repeats: boolean;
  readonly host: string | undefined;
  readonly markers: readonly Marker[];
  /** Fields by index whose entries hold a marker from an earlier block. */
  readonly references: number;
  /** What a request with a body has. */
  readonly isRequest: boolean;
}

/** A DATA frame, or what there is of it. */
export interface Data {
  /** Of the request that it belongs to; undefined: none of which a secret in a body could be of. */
  readonly host: string | undefined;
  readonly markers: readonly Marker[];
}

export interface Connection {
  /** In their order. */
  readonly parts: readonly (Block | Data)[];
  /** Where a server has to give up, if it has. */
  readonly error: number | undefined;
  /** The last header block has no end: what is wrong with it cannot be said yet. */
  readonly open: boolean;
}

// biome-ignore format: the table carries its meaning
const staticTable: readonly (readonly [string, string])[] = [
  ["", ""], [":authority", ""], [":method", "GET"], [":method", "POST"], [":path", "/"], [":path", "/index.html"],
  [":scheme", "http"], [":scheme", "https"], [":status", "200"], [":status", "204"], [":status", "206"],
  [":status", "304"], [":status", "400"], [":status", "404"], [":status", "500"], ["accept-charset", ""],
  ["accept-encoding", "gzip, deflate"], ["accept-language", ""], ["accept-ranges", ""], ["accept", ""],
  ["access-control-allow-origin", ""], ["age", ""], ["allow", ""], ["authorization", ""], ["cache-control", ""],
  ["content-disposition", ""], ["content-encoding", ""], ["content-language", ""], ["content-length", ""],
  ["content-location", ""], ["content-range", ""], ["content-type", ""], ["cookie", ""], ["date", ""], ["etag", ""],
  ["expect", ""], ["expires", ""], ["from", ""], ["host", ""], ["if-match", ""], ["if-modified-since", ""],
  ["if-none-match", ""], ["if-range", ""], ["if-unmodified-since", ""], ["last-modified", ""], ["link", ""],
  ["location", ""], ["max-forwards", ""], ["proxy-authenticate", ""], ["proxy-authorization", ""], ["range", ""],
  ["referer", ""], ["refresh", ""], ["retry-after", ""], ["server", ""], ["set-cookie", ""],
  ["strict-transport-security", ""], ["transfer-encoding", ""], ["user-agent", ""], ["vary", ""], ["via", ""],
  ["www-authenticate", ""],
];

const forbidden =
  /^(?::.*|host|cookie|origin|referer|upgrade|user-agent|proxy-authorization|content-.*|x-forwarded-.*)$/;
const connectionSpecific = /^(?:transfer-encoding|connection|upgrade|keep-alive|proxy-connection)$/;
const pseudo = [":method", ":scheme", ":path", ":authority", ":protocol"];
const once = [...pseudo, "host", "content-length"];
const valid: Readonly<Record<string, RegExp>> = {
  ":method": /^[!#$%&'*+\-.^_`|~0-9A-Za-z]+$/,
  ":protocol": /^[!#$%&'*+\-.^_`|~0-9A-Za-z]+$/,
  ":scheme": /^[a-z]+$/,
  ":path": /^[/*][\x21-\x7e\x80-\xff]*$/,
  ":authority": /^[A-Za-z0-9\-._:[\]]{1,255}$/,
  host: /^[A-Za-z0-9\-._:[\]]{1,255}$/,
  "content-length": /^[0-9]{1,18}$/,
};

class ConnectionError extends Error {}

interface Text {
  readonly text: string;
  readonly huffman: boolean;
  /** Where each character ends: byte offset, or bit offset if coded. */
  readonly ends: readonly number[];
}

interface Entry {
  readonly name: string;
  readonly value: string;
  readonly marked: number;
}

const decodings = new Map(
  huffmanCodes.map(({ code, bits }, byte) => [code.toString(2).padStart(bits, "0"), byte] as const),
);

class Reader {
  readonly #text: Buffer;
  /** Of each byte of the block: where in the connection. */
  readonly #places: readonly number[];
  at = 0;

  constructor(text: Buffer, places: readonly number[]) {
    this.#text = text;
    this.#places = places;
  }

  get done(): boolean {
    return this.at >= this.#text.length;
  }

  byte(): number {
    const byte = this.#text[this.at++];
    if (byte === undefined) throw new ConnectionError("cut");
    return byte;
  }

  integer(first: number, most: number): number {
    if ((first & most) < most) return first & most;
    let value = most;
    for (let shift = 0; shift < 28; shift += 7) {
      const byte = this.byte();
      value += (byte & 0x7f) * 2 ** shift;
      if (!(byte & 0x80)) return value;
    }
    throw new ConnectionError("integer");
  }

  string(): Text {
    const first = this.byte();
    const length = this.integer(first, 0x7f);
    if (this.at + length > this.#text.length) throw new ConnectionError("string");
    const ends: number[] = [];
    let text = "";
    if (!(first & 0x80)) {
      for (let i = 0; i < length; i++) {
        ends.push((this.#places[this.at] as number) + 1);
        text += String.fromCharCode(this.byte());
      }
      return { text, huffman: false, ends };
    }
    let bits = "";
    for (let i = 0; i < length; i++) {
      const place = this.#places[this.at] as number;
      const byte = this.byte();
      for (let bit = 7; bit >= 0; bit--) {
        bits += (byte >> bit) & 1;
        const symbol = decodings.get(bits);
        if (symbol !== undefined) {
          text += String.fromCharCode(symbol);
          ends.push(place * 8 + 8 - bit);
          bits = "";
        }
        if (bits.length === 30) throw new ConnectionError("end of string");
      }
    }
    if (bits.length > 7 || bits.includes("0")) throw new ConnectionError("padding");
    return { text, huffman: true, ends };
  }
}

class Table {
  #entries: Entry[] = [];
  #size = 0;
  #limit = 4096;

  at(index: number): Entry {
    if (index === 0) throw new ConnectionError("index 0");
    const known = staticTable[index];
    if (known) return { name: known[0], value: known[1], marked: -1 };
    const entry = this.#entries[index - staticTable.length];
    if (!entry) throw new ConnectionError(`index ${index}`);
    return entry;
  }

  get length(): number {
    return this.#entries.length;
  }

  resize(limit: number): void {
    this.#limit = limit;
    this.#evict(limit);
  }

  insert(entry: Entry): void {
    const size = entry.name.length + entry.value.length + 32;
    this.#evict(this.#limit - size);
    if (size > this.#limit) return;
    this.#entries.unshift(entry);
    this.#size += size;
  }

  #evict(room: number): void {
    while (this.#size > room && this.#entries.length > 0) {
      const { name, value } = this.#entries.pop() as Entry;
      this.#size -= name.length + value.length + 32;
    }
  }
}

function markersOf(name: string, value: Text): Marker[] {
  const { text, huffman, ends } = value;
  const found: Marker[] = [];
  const common = { huffman, forbidden: forbidden.test(name), header: name.length > 39 ? "" : name };
  for (let at = text.indexOf("kloak:"); at >= 0; at = text.indexOf("kloak:", at + 1)) {
    const end = ends[at + 5] as number;
    found.push({
      ...common,
      ...(name === ":path"
        ? { slot: text.slice(0, at).includes("?") ? ("query" as const) : ("path" as const), header: "" }
        : { slot: "header" as const }),
      marker: huffman ? end - 37 : end - 6,
      base64: undefined,
      percent: false,
      token: text.slice(at, at + 16),
      last: huffman ? Math.floor((end - 1) / 8) : end - 1,
    });
  }
  for (const { index: at } of name === ":path" ? text.matchAll(/kloak%3[Aa]/g) : []) {
    const end = ends[at + 7] as number;
    found.push({
      ...common,
      slot: text.slice(0, at).includes("?") ? "query" : "path",
      header: "",
      // In Huffman code no place is right: what it turns into has another length.
      marker: huffman ? end - 37 : end - 8,
      base64: undefined,
      percent: true,
      token: `kloak:${text.slice(at + 8, at + 18)}`,
      last: huffman ? Math.floor((end - 1) / 8) : end - 1,
    });
  }
  const [, scheme = "", base64 = ""] = /^(basic +)([A-Za-z0-9+/]*)/i.exec(text) ?? [];
  if (!base64 || !/^(?:proxy-)?authorization$/.test(name)) return found;
  const decoded = Buffer.from(base64, "base64").toString("latin1");
  for (let at = decoded.indexOf("kloak:"); at >= 0; at = decoded.indexOf("kloak:", at + 1)) {
    const characters = Math.ceil(((at + 6) * 8) / 6);
    const end = ends[scheme.length + characters - 1] as number;
    const last = huffman ? Math.floor((end - 1) / 8) : end - 1;
    found.push({
      ...common,
      slot: "header",
      marker: at,
      base64: end - characters,
      percent: false,
      token: "kloak:",
      last,
    });
  }
  return found;
}

function readBlock(reader: Reader, table: Table, trailers: boolean, number: number): Omit<Block, "end"> {
  let bad = trailers;
  let repeats = false;
  let references = 0;
  let fields = 0;
  let regular = false;
  let host: string | undefined;
  const markers: Marker[] = [];
  const seen = new Set<string>();

  const field = (name: string, value: string) => {
    if (!/^:?[!#$%&'*+\-.^_`|~0-9a-z]+$/.test(name) || /[^\t\x20-\x7e\x80-\xff]/.test(value)) bad = true;
    if (name.startsWith(":") ? regular || !pseudo.includes(name) : connectionSpecific.test(name)) bad = true;
    if (!name.startsWith(":")) regular = true;
    if (once.includes(name)) {
      if (seen.has(name) || !valid[name]?.test(value)) bad = true;
      seen.add(name);
    }
    if ((name === ":authority" || name === "host") && valid[name]?.test(value)) {
      if (host !== undefined && host !== value.toLowerCase()) bad = true;
      host ??= value.toLowerCase();
    }
  };
  while (!reader.done) {
    const first = reader.byte();
    if (first & 0x80) {
      const entry = table.at(reader.integer(first, 0x7f));
      if (entry.marked === number) repeats = true;
      else if (entry.marked >= 0) references += 1;
      field(entry.name, entry.value);
    } else if ((first & 0xe0) === 0x20) {
      const limit = reader.integer(first, 0x1f);
      if (fields > 0) throw new ConnectionError("resize");
      table.resize(limit);
      continue;
    } else {
      const inserted = (first & 0x40) !== 0;
      const index = reader.integer(first, inserted ? 0x3f : 0x0f);
      const name = index > 0 ? table.at(index).name : reader.string().text;
      if (name === "") throw new ConnectionError("no name");
      const value = reader.string();
      const found = markersOf(name, value);
      markers.push(...found);
      field(name, value.text);
      if (inserted) table.insert({ name, value: value.text, marked: found.length > 0 ? number : -1 });
    }
    fields += 1;
  }
  const isRequest = !bad && seen.has(":method") && seen.has(":path") && !seen.has(":protocol");
  return { bad, repeats, host, markers, references, isRequest };
}

function markersOfBody(text: string, place: number): Marker[] {
  return [...text.matchAll(/kloak(?::|%3[Aa])/g)].map((match) => ({
    marker: place + match.index,
    base64: undefined,
    percent: match[0] !== "kloak:",
    huffman: false,
    slot: "body",
    forbidden: false,
    header: "",
    token: "",
    last: place + match.index + match[0].length - 1,
  }));
}

/** How many requests with bodies under way are remembered. */
const streamsMax = 16;

/** A connection that begins with its preface, and may be cut anywhere. */
export function readConnection(stream: Buffer, { bodies = false } = {}): Connection {
  const preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
  const parts: (Block | Data)[] = [];
  const hosts: { readonly stream: number; readonly host: string }[] = [];
  let blocks = 0;
  const table = new Table();
  let at = preface.length;
  let open: { stream: number; ends: boolean; pieces: Buffer[]; places: number[] } | undefined;
  let newest = 0;
  let trailers = false;
  if (stream.toString("latin1", 0, at) !== preface) return { parts, error: 0, open: false };
  try {
    while (at + 9 <= stream.length) {
      const length = stream.readUIntBE(at, 3);
      const type = stream[at + 3] as number;
      const flags = stream[at + 4] as number;
      const number = stream.readUInt32BE(at + 5) & 0x7fffffff;
      if ((type === 9) !== (open !== undefined) || type === 5) throw new ConnectionError("order");
      at += 9;
      if (type === 1 || type === 9) {
        let start = at;
        let end = at + length;
        if (type === 9) {
          if (number !== open?.stream) throw new ConnectionError("stream");
        } else {
          if (!(number & 1)) throw new ConnectionError("stream");
          trailers = number <= newest;
          newest = Math.max(newest, number);
          open = { stream: number, ends: (flags & 1) !== 0, pieces: [], places: [] };
          const fixed = (flags & 8 ? 1 : 0) + (flags & 32 ? 5 : 0);
          if (length < fixed) throw new ConnectionError("length");
          if (at + fixed > stream.length) break;
          start += fixed;
          if (flags & 8) end -= stream[at] as number;
          if (end < start) throw new ConnectionError("padding");
        }
        if (end > stream.length) break;
        open?.pieces.push(stream.subarray(start, end));
        for (let place = start; place < end; place++) open?.places.push(place);
        if (flags & 4 && open) {
          const reader = new Reader(Buffer.concat(open.pieces), open.places);
          const block = readBlock(reader, table, trailers, blocks);
          blocks += 1;
          parts.push({ end, ...block });
          if (block.isRequest && !open.ends && block.host !== undefined)
            hosts.unshift({ stream: number, host: block.host });
          open = undefined;
        }
      }
      if (type === 0 && bodies) {
        const start = at + (flags & 8 ? 1 : 0);
        if (flags & 8 && at + 1 > stream.length && length > 0) break;
        const end = at + length - (flags & 8 ? (stream[at] as number) : 0);
        if (end < start) throw new ConnectionError("padding");
        const markers = markersOfBody(stream.toString("latin1", start, Math.min(end, stream.length)), start);
        parts.push({ host: hosts.slice(0, streamsMax).find((each) => each.stream === number)?.host, markers });
      }
      at += length;
    }
  } catch (error) {
    if (!(error instanceof ConnectionError)) throw error;
    return { parts, error: at, open: false };
  }
  return { parts, error: undefined, open: open !== undefined };
}
