/* What a Go program with TLS looks like from outside, in assembly for the tests' compiler. */

export interface GoShape {
  readonly gcm?: string;
  readonly gcmArguments?: number;
  readonly chacha?: string;
  readonly protocol?: string;
  /** Of a function of the same shape, listed last. */
  readonly more?: string;
  /** Bytes by which the second word of moduledata, where the names are, is wrong. */
  readonly namesShift?: number;
}

/** The check of the stack, the frame, and the arguments: as the assembler of go1.26 makes them. */
const body = (reads: readonly number[]) => `
  movq %fs:0xfffffffffffffff8, %r14
  leaq -0x88(%rsp), %r12
  cmpq 0x10(%r14), %r12
  jbe 9f
  pushq %rbp
  movq %rsp, %rbp
  subq $0x100, %rsp
${reads.map((offset) => `  movq ${0x108 + offset}(%rsp), %rdi`).join("\n")}
  addq $0x100, %rsp
  popq %rbp
  ret
9: ud2
  .balign 32, 0xcc`;

export function goLike(shape: GoShape = {}): string {
  const {
    gcm = "crypto/internal/fips140/aes/gcm.gcmAesEnc",
    chacha = "vendor/golang.org/x/crypto/chacha20poly1305.chacha20Poly1305Seal",
    protocol = "crypto/tls.(*halfConn).encrypt",
    gcmArguments = 96,
    more = "main.main",
    namesShift = 0,
  } = shape;
  const functions = [
    { name: "main.first", code: "ret\n.balign 32, 0xcc", size: 0 },
    { name: gcm, code: body([8, 16, 40, 48, 64, 72, 80]), size: gcmArguments },
    { name: protocol, code: "ret\n.balign 32, 0xcc", size: 80 },
    { name: chacha, code: body([8, 32, 56, 64, 80]), size: 96 },
    { name: more, code: body([8, 16, 40, 48, 64, 72, 80]), size: 96 },
  ];
  const each = (line: (index: number) => string) => functions.map((_, index) => line(index)).join("\n");
  const assembly = `
.text
.space 32, 0xcc
code: ${functions.map(({ code }, index) => `f${index}:\n${code}`).join("\n")}
end:
.section .gopclntab,"a",@progbits
table: .long 0xfffffff1
.byte 0, 0, 1, 8
.quad ${functions.length}, 1, 0, names - table, cu - table, cu - table, cu - table, index - table
names: .byte 0
${functions.map(({ name }, index) => `n${index}: .asciz "${name}"`).join("\n")}
cu: .balign 8
index:
${each((index) => `.long f${index} - code, d${index} - index`)}
.long end - code
.balign 8
${functions.map(({ size }, index) => `d${index}: .long f${index} - code, n${index} - names, ${size}, 0, 0, 0, 0, 0, 0, 0`).join("\n")}
.section .go.module,"aw",@progbits
.quad table, names + ${namesShift}, 0, 0
.fill 12, 8, 0
.quad index, ${functions.length + 1}, 0, 0, code, end, code, end, 0, 0
.section .rodata
.asciz "c ap traffic crypto/tls.(*Conn)"
.section .go.buildinfo,"aw",@progbits
.ascii "\\377 Go buildinf:"
.byte 8, 2
.fill 16, 1, 0
.byte 8
.ascii "go1.26.8"
.fill 32, 1, 0`;
  return `asm(${assembly
    .split("\n")
    .map((line) => JSON.stringify(`${line}\n`))
    .join("\n")});\n`;
}
