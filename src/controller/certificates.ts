/*
 * The controller's own certificate authority: it signs the certificate with which webhook and node API show who they
 * are, and those with which agents do.
 */
import "reflect-metadata";
import { createPublicKey, webcrypto } from "node:crypto";
import { isIP } from "node:net";
import * as x509 from "@peculiar/x509";

x509.cryptoProvider.set(webcrypto);

type CryptoKey = webcrypto.CryptoKey;

const algorithm = { name: "ECDSA", namedCurve: "P-256", hash: "SHA-256" } as const;

/** PEM. */
export interface KeyPair {
  readonly certificate: string;
  readonly key: string;
}

export interface Validity {
  readonly from: Date;
  readonly to: Date;
}

/** Certificates are valid from a little before now: clocks differ. */
export function validFor(ms: number, now = Date.now()): Validity {
  return { from: new Date(now - 5 * 60_000), to: new Date(now + ms) };
}

export async function makeAuthority(name: string, { from, to }: Validity): Promise<KeyPair> {
  const keys = await webcrypto.subtle.generateKey(algorithm, true, ["sign", "verify"]);
  const certificate = await x509.X509CertificateGenerator.createSelfSigned({
    serialNumber: serial(),
    name: `CN=${name}`,
    notBefore: from,
    notAfter: to,
    signingAlgorithm: algorithm,
    keys,
    extensions: [
      new x509.BasicConstraintsExtension(true, 0, true),
      new x509.KeyUsagesExtension(x509.KeyUsageFlags.keyCertSign | x509.KeyUsageFlags.cRLSign, true),
      await x509.SubjectKeyIdentifierExtension.create(keys.publicKey),
    ],
  });
  return { certificate: certificate.toString("pem"), key: await privateKeyText(keys.privateKey) };
}

export async function makeServerCertificate(
  authority: KeyPair,
  names: readonly string[],
  validity: Validity,
): Promise<KeyPair> {
  const keys = await webcrypto.subtle.generateKey(algorithm, true, ["sign", "verify"]);
  const alternatives = names.map((value) => ({ type: isIP(value) === 0 ? ("dns" as const) : ("ip" as const), value }));
  const certificate = await sign(authority, `CN=${names[0]?.slice(0, 64)}`, keys.publicKey, validity, [
    new x509.SubjectAlternativeNameExtension(alternatives),
    new x509.ExtendedKeyUsageExtension([x509.ExtendedKeyUsage.serverAuth]),
  ]);
  return { certificate, key: await privateKeyText(keys.privateKey) };
}

/**
 * A certificate for an agent's key (PEM, SubjectPublicKeyInfo). Its name comes from who the agent has proven to be.
 * @throws TypeError if the key is no EC key on P-256
 */
export async function signAgent(
  authority: KeyPair,
  publicKey: string,
  node: string,
  validity: Validity,
): Promise<string> {
  const key = createPublicKey(publicKey);
  if (key.asymmetricKeyType !== "ec" || key.asymmetricKeyDetails?.namedCurve !== "prime256v1") {
    throw new TypeError("the key must be an EC key on P-256");
  }
  const spki = await webcrypto.subtle.importKey("spki", key.export({ type: "spki", format: "der" }), algorithm, true, [
    "verify",
  ]);
  return sign(authority, [{ O: [agentOrganization] }, { CN: [node] }], spki, validity, [
    new x509.ExtendedKeyUsageExtension([x509.ExtendedKeyUsage.clientAuth]),
  ]);
}

export const agentOrganization = "kloak:agents";
export const peerOrganization = "kloak:controllers";

/** With which a replica shows others that it is one: it has the authority's key. */
export async function makePeerCertificate(authority: KeyPair, validity: Validity): Promise<KeyPair> {
  const keys = await webcrypto.subtle.generateKey(algorithm, true, ["sign", "verify"]);
  const subject = [{ O: [peerOrganization] }, { CN: ["controller"] }];
  const certificate = await sign(authority, subject, keys.publicKey, validity, [
    new x509.ExtendedKeyUsageExtension([x509.ExtendedKeyUsage.clientAuth]),
  ]);
  return { certificate, key: await privateKeyText(keys.privateKey) };
}

async function sign(
  authority: KeyPair,
  subject: string | x509.JsonName,
  publicKey: x509.PublicKeyType,
  { from, to }: Validity,
  extensions: readonly x509.Extension[],
): Promise<string> {
  const issuer = new x509.X509Certificate(authority.certificate);
  const certificate = await x509.X509CertificateGenerator.create({
    serialNumber: serial(),
    subject,
    issuer: issuer.subject,
    notBefore: from,
    notAfter: to,
    signingKey: await privateKey(authority.key),
    publicKey,
    signingAlgorithm: algorithm,
    extensions: [
      new x509.BasicConstraintsExtension(false, undefined, true),
      new x509.KeyUsagesExtension(x509.KeyUsageFlags.digitalSignature, true),
      await x509.AuthorityKeyIdentifierExtension.create(issuer),
      ...extensions,
    ],
  });
  return certificate.toString("pem");
}

/** Until a certificate ends; negative after. */
export function remainingMs(certificate: string, now = Date.now()): number {
  return new x509.X509Certificate(certificate).notAfter.getTime() - now;
}

function serial(): string {
  const bytes = Buffer.from(webcrypto.getRandomValues(new Uint8Array(16)));
  bytes[0] = ((bytes[0] ?? 0) & 0x7f) | 0x40; // positive, and of full length
  return bytes.toString("hex");
}

async function privateKeyText(key: CryptoKey): Promise<string> {
  return x509.PemConverter.encode(await webcrypto.subtle.exportKey("pkcs8", key), "PRIVATE KEY");
}

function privateKey(pem: string): Promise<CryptoKey> {
  const [bytes] = x509.PemConverter.decode(pem);
  return webcrypto.subtle.importKey("pkcs8", bytes as ArrayBuffer, algorithm, false, ["sign"]);
}
