/* How the demo speaks: numbered chapters, sentences, and claims that were checked while it ran. */
import { stripVTControlCharacters, styleText } from "node:util";

type Style = Parameters<typeof styleText>[0];

export class Story {
  readonly #out: NodeJS.WriteStream;
  readonly #colour: boolean;
  readonly #width: number;
  #chapter = 0;
  #claims = 0;
  #broken: string[] = [];

  constructor(out: NodeJS.WriteStream, env: NodeJS.ProcessEnv) {
    this.#out = out;
    this.#colour = out.isTTY && !env["NO_COLOR"] && env["TERM"] !== "dumb";
    this.#width = Math.min(out.columns || 100, 100);
  }

  get claims(): number {
    return this.#claims;
  }

  get broken(): readonly string[] {
    return this.#broken;
  }

  #style(style: Style, text: string): string {
    return this.#colour ? styleText(style, text, { validateStream: false }) : text;
  }

  title(text: string): void {
    this.#out.write(`\n${this.#style("bold", text)}\n`);
  }

  chapter(text: string): void {
    this.#chapter += 1;
    this.#out.write(`\n${this.#style(["bold", "cyan"], `${this.#chapter}  ${text}`)}\n`);
  }

  /** A paragraph, wrapped. */
  say(text: string): void {
    for (const line of wrap(text, this.#width - 3)) this.#out.write(`   ${line}\n`);
  }

  /** Names and values below each other. */
  show(rows: readonly (readonly [string, string])[]): void {
    const width = Math.max(...rows.map(([name]) => name.length));
    this.#out.write("\n");
    for (const [name, value] of rows) {
      this.#out.write(`     ${this.#style("dim", name.padEnd(width))}  ${this.#marked(value)}\n`);
    }
    this.#out.write("\n");
  }

  /** A claim, and whether it held. */
  claim(text: string, holds: boolean, detail = ""): void {
    this.#claims += 1;
    if (!holds) this.#broken.push(text);
    const mark = holds ? this.#style("green", "ok") : this.#style(["bold", "red"], "FAILED");
    const more = detail === "" ? "" : this.#style("dim", `  ${detail}`);
    this.#out.write(`   ${mark}  ${text}${more}\n`);
  }

  end(seconds: number): void {
    const all = `${this.#claims} claims checked in ${seconds.toFixed(0)} s`;
    if (this.#broken.length === 0)
      this.#out.write(`\n${this.#style(["bold", "green"], `${all}; all of them held.`)}\n\n`);
    else this.#out.write(`\n${this.#style(["bold", "red"], `${all}; ${this.#broken.length} did not hold.`)}\n\n`);
  }

  #marked(text: string): string {
    return text.replace(/kloak:\S+/g, (found) => this.#style("yellow", found));
  }
}

function wrap(text: string, width: number): string[] {
  const lines: string[] = [];
  let line = "";
  for (const word of text.split(" ")) {
    if (line !== "" && stripVTControlCharacters(`${line} ${word}`).length > width) {
      lines.push(line);
      line = word;
    } else {
      line = line === "" ? word : `${line} ${word}`;
    }
  }
  return [...lines, line];
}
