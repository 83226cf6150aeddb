/*
 * What straight-line code stores where: the constants and addresses that a function writes into a table, as compilers
 * make it of a list of assignments. Code that does anything else ends it.
 */

/** A word of 64 bits that is known, or not. */
type Value = number | undefined;

/** Reads the word at an address of the program, as the loader leaves it. */
export type ReadWord = (address: number) => Value;

export interface Stores {
  /** By address: the words and half words that were written, the last one each. */
  readonly words: ReadonlyMap<number, number>;
  /** Offsets in the code at which an instruction begins. */
  readonly starts: ReadonlySet<number>;
  /** Where it ended, by a return or by what is not understood. */
  readonly end: number;
  readonly returned: boolean;
}

const instructionsMax = 96;

interface Operand {
  readonly register: number;
  /** Of the second register, for a direct operand. */
  readonly direct: number | undefined;
  /** The address in memory, if it is known. */
  readonly address: Value;
  readonly length: number;
}

/** Follows the code from its first byte, which is at `address` in the program. */
export function storesOf(code: Buffer, address: number, readWord: ReadWord): Stores {
  const run = new Run(code, address, readWord);
  for (let count = 0; count < instructionsMax && run.step(); count++);
  return run;
}

class Run implements Stores {
  readonly words = new Map<number, number>();
  readonly starts = new Set<number>();
  end = 0;
  returned = false;
  readonly #registers: Value[] = [];
  /** Halves of the vector registers. */
  readonly #low: Value[] = [];
  readonly #high: Value[] = [];
  readonly #code: Buffer;
  readonly #address: number;
  readonly #readWord: ReadWord;

  constructor(code: Buffer, address: number, readWord: ReadWord) {
    this.#code = code;
    this.#address = address;
    this.#readWord = readWord;
  }

  /** Whether the next instruction was understood and the line goes on. */
  step(): boolean {
    const start = this.end;
    const length = start + 16 <= this.#code.length ? this.#instruction(start) : 0;
    if (length === 0) return false;
    this.starts.add(start);
    this.end = start + length;
    return !this.returned;
  }

  /** Its length; 0: not understood. */
  #instruction(start: number): number {
    const code = this.#code;
    if (code.readUInt32LE(start) === 0xfa1e0ff3) return 4; // endbr64
    if ((code.readUIntLE(start, 3) & 0xffffff) === 0xab48f3) return 3; // rep stos: clears the table
    let at = start;
    const operandSize = code[at] === 0x66;
    if (operandSize) at += 1;
    const repeat = code[at] === 0xf3;
    if (repeat) at += 1;
    let rex = 0;
    if (((code[at] ?? 0) & 0xf0) === 0x40) rex = code[at++] ?? 0;
    const opcode = code[at++] ?? 0;
    const done = (end: number): number => end - start;
    const high = (rex & 1) << 3;
    if (opcode === 0x0f) return this.#vector(start, at, rex, operandSize, repeat);
    if (repeat) return 0;
    if (opcode === 0xc3) {
      this.returned = true;
      return done(at);
    }
    if (opcode === 0x90 || (opcode >= 0x50 && opcode <= 0x57)) return done(at);
    if (opcode >= 0x58 && opcode <= 0x5f) {
      this.#registers[(opcode & 7) | high] = undefined;
      return done(at);
    }
    if (opcode >= 0xb8 && opcode <= 0xbf && !operandSize) {
      const wide = (rex & 8) !== 0;
      this.#registers[(opcode & 7) | high] = wide ? word(code, at) : code.readUInt32LE(at);
      return done(at + (wide ? 8 : 4));
    }
    const immediate = opcode === 0xc7 ? (operandSize ? 2 : 4) : opcode === 0xc6 ? 1 : 0;
    const operand = this.#operand(at, rex, immediate);
    if (operand === undefined) return 0;
    at += operand.length;
    switch (opcode) {
      case 0x31: // xor of a register with itself
        if (operand.direct !== operand.register) return 0;
        this.#registers[operand.register] = 0;
        return done(at);
      case 0x8d: // lea
        this.#registers[operand.register] = operand.address;
        return operand.direct === undefined ? done(at) : 0;
      case 0x89: // mov to memory or to a register
        if (operand.direct !== undefined) {
          this.#registers[operand.direct] = this.#registers[operand.register];
        } else if (operandSize) {
          this.#clear(operand.address);
        } else {
          this.#store(operand.address, this.#registers[operand.register], (rex & 8) !== 0);
        }
        return done(at);
      case 0x8b: // mov from memory or from a register
        this.#registers[operand.register] =
          operand.direct === undefined ? this.#read(operand.address) : this.#registers[operand.direct];
        return done(at);
      case 0xc6:
        return done(at + 1);
      case 0xc7: // mov of a constant
        if (operandSize) return done(at + 2);
        this.#store(operand.address, code.readInt32LE(at), (rex & 8) !== 0);
        return done(at + 4);
      default:
        return 0;
    }
  }

  #vector(start: number, at: number, rex: number, operandSize: boolean, repeat: boolean): number {
    const opcode = this.#code[at] ?? 0;
    const operand = this.#operand(at + 1, rex, 0);
    if (operand === undefined) return 0;
    const { register, direct, address } = operand;
    const length = at + 1 + operand.length - start;
    switch (opcode) {
      case 0x1f: // nop
        return length;
      case 0xef: // pxor
      case 0x57: // xorps
        if (direct !== register) return 0;
        this.#low[register] = this.#high[register] = 0;
        return length;
      case 0x6e: // movq from a general register
        if (!operandSize || (rex & 8) === 0 || direct === undefined) return 0;
        this.#low[register] = this.#registers[direct];
        this.#high[register] = 0;
        return length;
      case 0x7e: // movq from memory
        if (!repeat || direct !== undefined) return 0;
        this.#low[register] = this.#read(address);
        this.#high[register] = 0;
        return length;
      case 0x6c: // punpcklqdq
        if (!operandSize) return 0;
        this.#high[register] = direct === undefined ? this.#read(address) : this.#low[direct];
        return length;
      case 0x16: // movhps
        if (direct !== undefined) return 0;
        this.#high[register] = this.#read(address);
        return length;
      case 0x10: // movups
      case 0x28: // movaps
      case 0x6f: // movdqa, movdqu
        this.#low[register] = direct === undefined ? this.#read(address) : this.#low[direct];
        this.#high[register] =
          direct === undefined ? this.#read(address === undefined ? undefined : address + 8) : this.#high[direct];
        return length;
      case 0x11: // the same, to memory
      case 0x29:
      case 0x7f:
        if (direct !== undefined) return 0;
        this.#store(address, this.#low[register], true);
        this.#store(address === undefined ? undefined : address + 8, this.#high[register], true);
        return length;
      default:
        return 0;
    }
  }

  #read(address: Value): Value {
    return address === undefined ? undefined : this.#readWord(address);
  }

  #store(address: Value, value: Value, wide: boolean): void {
    if (address === undefined) return;
    if (value === undefined) this.words.delete(address);
    else this.words.set(address, wide ? value : value % 2 ** 32);
  }

  #clear(address: Value): void {
    if (address !== undefined) this.words.delete(address);
  }

  /** The byte ModRM, and what belongs to it. `immediate`: bytes after it, from which rip counts. */
  #operand(at: number, rex: number, immediate: number): Operand | undefined {
    const code = this.#code;
    const modrm = code[at] ?? 0;
    const register = ((modrm >> 3) & 7) | ((rex & 4) << 1);
    const base = (modrm & 7) | ((rex & 1) << 3);
    const mode = modrm >> 6;
    if (mode === 3) return { register, direct: base, address: undefined, length: 1 };
    if (mode === 0 && (modrm & 7) === 5) {
      const address = this.#address + at + 5 + immediate + code.readInt32LE(at + 1);
      return { register, direct: undefined, address, length: 5 };
    }
    // With a byte SIB: only nops and what lies in the function's own frame have one here.
    const sib = (modrm & 7) === 4 ? 1 : 0;
    if (sib === 1 && mode === 0 && ((code[at + 1] ?? 0) & 7) === 5) return undefined;
    const known = sib === 1 ? undefined : this.#registers[base];
    const displacement = mode === 0 ? 0 : mode === 1 ? code.readInt8(at + 1 + sib) : code.readInt32LE(at + 1 + sib);
    const address = known === undefined ? undefined : known + displacement;
    return { register, direct: undefined, address, length: 1 + sib + (mode === 0 ? 0 : mode === 1 ? 1 : 4) };
  }
}

function word(bytes: Buffer, at: number): Value {
  const value = bytes.readBigUInt64LE(at);
  return value > BigInt(Number.MAX_SAFE_INTEGER) ? undefined : Number(value);
}
