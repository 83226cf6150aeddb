/* What kloak-launch becomes after kloak's death: `node tidy-main.ts ID`. */
import { list } from "./state.ts";
import { removeRun } from "./tidy.ts";

const id = process.argv[2];
const record = list().find((candidate) => candidate.id === id);
const errors = record === undefined ? [] : await removeRun(record);
process.exitCode = errors.length === 0 ? 0 : 1;
