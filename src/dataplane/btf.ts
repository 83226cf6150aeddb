import { KloakError } from "../errors.ts";

/**
 * Reads BTF, the type information that clang writes into a BPF object (Documentation/bpf/btf.rst): enough to generate
 * the codecs of types.gen.ts from it, and to compare them with an object that is about to be loaded.
 */

export type BtfKind =
  | "int"
  | "pointer"
  | "array"
  | "struct"
  | "union"
  | "enum"
  | "forward"
  | "alias" // typedef, volatile, const, restrict, type tag
  | "variable"
  | "section"
  | "other";

export interface BtfMember {
  readonly name: string;
  readonly type: number;
  /** Bytes from the start of the struct; bit fields are not supported. */
  readonly offset: number;
}

export interface BtfType {
  readonly kind: BtfKind;
  readonly name: string;
  /** Of int, struct, union and enum. */
  readonly bytes: number;
  /** What it points to, stands for, or is an array of. */
  readonly type: number;
  /** Elements of an array. */
  readonly count: number;
  readonly members: readonly BtfMember[];
  readonly values: readonly (readonly [name: string, value: bigint])[];
}

const kinds: readonly BtfKind[] = [
  "other",
  "int",
  "pointer",
  "array",
  "struct",
  "union",
  "enum",
  "forward",
  "alias",
  "alias",
  "alias",
  "alias",
  "other",
  "other",
  "variable",
  "section",
  "other",
  "other",
  "alias",
  "enum",
];

const ENUM_64 = 19;

function fail(file: string, what: string): never {
  throw new KloakError("bad-object", `${file}: ${what}; run \`npm run build\` to make it anew`);
}

/** Contents of section `name` of a 64-bit little-endian ELF file. */
export function elfSection(elf: Buffer, name: string, file: string): Buffer {
  if (elf.length < 64 || elf.readUInt32BE(0) !== 0x7f454c46) fail(file, "this is no ELF object");
  const headers = Number(elf.readBigUInt64LE(0x28));
  const headerBytes = elf.readUInt16LE(0x3a);
  const count = elf.readUInt16LE(0x3c);
  const header = (index: number) => {
    const at = headers + index * headerBytes;
    const offset = Number(elf.readBigUInt64LE(at + 24));
    return { name: elf.readUInt32LE(at), data: elf.subarray(offset, offset + Number(elf.readBigUInt64LE(at + 32))) };
  };
  const names = header(elf.readUInt16LE(0x3e)).data;
  for (let index = 0; index < count; index++) {
    const section = header(index);
    if (names.toString("latin1", section.name, names.indexOf(0, section.name)) === name) return section.data;
  }
  return fail(file, `section ${name} is missing`);
}

export class Btf {
  readonly types: readonly BtfType[];

  constructor(elf: Buffer, file: string) {
    const data = elfSection(elf, ".BTF", file);
    if (data.readUInt16LE(0) !== 0xeb9f) fail(file, "its BTF is not little-endian BTF");
    const start = data.readUInt32LE(4);
    const strings = data.subarray(start + data.readUInt32LE(16));
    const text = (at: number) => strings.toString("utf8", at, strings.indexOf(0, at));
    const types: BtfType[] = [{ kind: "other", name: "void", bytes: 0, type: 0, count: 0, members: [], values: [] }];
    const end = start + data.readUInt32LE(8) + data.readUInt32LE(12);
    let at = start + data.readUInt32LE(8);
    while (at < end) {
      const name = text(data.readUInt32LE(at));
      const info = data.readUInt32LE(at + 4);
      const word = data.readUInt32LE(at + 8);
      const length = info & 0xffff;
      const code = (info >>> 24) & 0x1f;
      const kind = kinds[code] ?? fail(file, `its BTF has kind ${code}`);
      const bitFields = info >>> 31 === 1;
      const members: BtfMember[] = [];
      const values: (readonly [string, bigint])[] = [];
      let type = kind === "pointer" || kind === "alias" || kind === "variable" ? word : 0;
      let count = 0;
      at += 12;
      if (kind === "int" || kind === "variable" || code === 17) at += 4;
      else if (kind === "array") {
        type = data.readUInt32LE(at);
        count = data.readUInt32LE(at + 8);
        at += 12;
      } else if (kind === "struct" || kind === "union") {
        for (let index = 0; index < length; index++, at += 12) {
          const bits = data.readUInt32LE(at + 8);
          members.push({
            name: text(data.readUInt32LE(at)),
            type: data.readUInt32LE(at + 4),
            offset: (bitFields ? bits & 0xffffff : bits) / 8,
          });
        }
      } else if (code === ENUM_64) {
        for (let index = 0; index < length; index++, at += 12)
          values.push([text(data.readUInt32LE(at)), data.readBigUInt64LE(at + 4)]);
      } else if (kind === "enum") {
        for (let index = 0; index < length; index++, at += 8)
          values.push([text(data.readUInt32LE(at)), BigInt(data.readInt32LE(at + 4))]);
      } else if (kind === "section") {
        for (let index = 0; index < length; index++, at += 12)
          members.push({ name: "", type: data.readUInt32LE(at), offset: data.readUInt32LE(at + 4) });
      } else if (code === 13) at += length * 8;
      const sized = kind === "int" || kind === "struct" || kind === "union" || kind === "enum";
      types.push({ kind, name, bytes: sized ? word : 0, type, count, members, values });
    }
    this.types = types;
  }

  at(id: number): BtfType {
    const type = this.types[id];
    if (!type) throw new RangeError(`BTF has no type ${id}`);
    return type;
  }

  /** The type without const, volatile and typedef. */
  resolve(id: number): BtfType {
    const type = this.at(id);
    return type.kind === "alias" ? this.resolve(type.type) : type;
  }

  find(kind: BtfKind, name: string): BtfType | undefined {
    return this.types.find((type) => type.kind === kind && type.name === name);
  }

  bytesOf(id: number): number {
    const type = this.resolve(id);
    if (type.kind === "array") return type.count * this.bytesOf(type.type);
    return type.kind === "pointer" ? 8 : type.bytes;
  }

  /** One line that changes whenever a field of the struct moves or changes its shape. */
  layout(struct: BtfType): string {
    const shape = (id: number): string => {
      const type = this.resolve(id);
      if (type.kind === "array") return `${shape(type.type)}[${type.count}]`;
      return type.kind === "pointer" ? "*" : `${type.name || type.kind}/${type.bytes}`;
    };
    const fields = struct.members.map((member) => `${member.name}@${member.offset}:${shape(member.type)}`);
    return `${struct.bytes} ${fields.join(" ")}`;
  }
}
