/* A certificate authority of its own and server certificates under it, made with the openssl command. */
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { runSync } from "./command.ts";

export interface Certificate {
  readonly keyFile: string;
  readonly certificateFile: string;
}

export interface Authority {
  /** PEM file with the root. */
  readonly caFile: string;
  issue(file: string, names: CertificateNames): Certificate;
}

export interface CertificateNames {
  readonly dns?: readonly string[];
  readonly ip?: readonly string[];
  /** Days from now to the end of validity; negative: it has ended. Default 30. */
  readonly days?: number;
}

/** Makes a root named `name` in `directory`. P-256 keys: quick to make, and every client has them. */
export function createAuthority(directory: string, name: string): Authority {
  const caKey = join(directory, `${name}.key`);
  const caFile = join(directory, `${name}.pem`);
  const newKey = (file: string) =>
    runSync("openssl", ["genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-out", file]);
  newKey(caKey);
  const authority = ["-addext", "keyUsage=critical,keyCertSign,cRLSign"];
  runSync("openssl", [
    "req",
    "-x509",
    "-new",
    "-key",
    caKey,
    "-subj",
    `/CN=${name}`,
    "-days",
    "30",
    "-out",
    caFile,
    ...authority,
  ]);

  return {
    caFile,
    issue(file, names) {
      const keyFile = join(directory, `${file}.key`);
      const certificateFile = join(directory, `${file}.pem`);
      const requestFile = join(directory, `${file}.csr`);
      const extensionFile = join(directory, `${file}.ext`);
      const alternatives = [
        ...(names.dns ?? []).map((dns) => `DNS:${dns}`),
        ...(names.ip ?? []).map((ip) => `IP:${ip}`),
      ];
      const extensions = [
        `subjectAltName=${alternatives.join(",")}`,
        "basicConstraints=critical,CA:FALSE",
        "keyUsage=critical,digitalSignature",
        "extendedKeyUsage=serverAuth",
        "authorityKeyIdentifier=keyid",
      ];
      writeFileSync(extensionFile, `${extensions.join("\n")}\n`);
      newKey(keyFile);
      runSync("openssl", ["req", "-new", "-key", keyFile, "-subj", `/CN=${file}`, "-out", requestFile]);
      const days = String(names.days ?? 30);
      const signing = ["-CA", caFile, "-CAkey", caKey, "-CAcreateserial", "-days", days, "-extfile", extensionFile];
      runSync("openssl", ["x509", "-req", "-in", requestFile, "-out", certificateFile, ...signing]);
      return { keyFile, certificateFile };
    },
  };
}
