import { userInfo } from "node:os";
import { KloakError } from "../errors.ts";
import type { Identity } from "./launcher.ts";
import { program } from "./program.ts";

export interface User extends Identity {
  readonly name: string;
  readonly home: string;
  readonly shell: string;
}

/**
 * Who the command runs as: `--user`, else who called sudo, else the caller (undefined: nothing changes).
 * @throws KloakError if there is no such user.
 */
export async function commandUser(
  option: string | undefined,
  environment: NodeJS.ProcessEnv,
): Promise<User | undefined> {
  const name = option ?? environment.SUDO_USER;
  if (name === undefined || name === "" || (option === undefined && name === userInfo().username)) return undefined;
  return lookUp(name, option === undefined ? "Variable SUDO_USER" : "--user");
}

/** By getent and id, which know of directories (LDAP, systemd) too. */
async function lookUp(name: string, origin: string): Promise<User> {
  try {
    const [entry, groups] = await Promise.all([
      program("getent", ["passwd", "--", name]),
      program("id", ["-G", "--", name]),
    ]);
    const [login = "", , uid, gid, , home = "/", shell = "/bin/sh"] = entry.trim().split(":");
    return {
      name: login,
      uid: Number(uid),
      gid: Number(gid),
      groups: groups.trim().split(" ").map(Number),
      home,
      shell,
    };
  } catch (error) {
    throw new KloakError(
      "no-such-user",
      `${origin}: there is no user ${JSON.stringify(name)} on this host (\`getent passwd\` lists them).`,
      {
        cause: error,
      },
    );
  }
}
