"""asyncio, whose TLS runs over memory BIOs: one connection for each URL. See README.md for the arguments."""

import asyncio
import os
import ssl
import sys
import urllib.parse

ca, requests, big, names, *urls = sys.argv[1:]
context = ssl.create_default_context(cafile=ca)
body = (b"0123456789abcdef" * (int(big) // 16 + 1))[: int(big)]


async def ask(streams, host, method, path, extra="", data=b""):
    reader, writer = streams
    length = f"Content-Length: {len(data)}\r\n" if data else ""
    writer.write(f"{method} {path} HTTP/1.1\r\nHost: {host}\r\n{extra}{length}\r\n".encode() + data)
    await writer.drain()
    head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
    if " 200 " not in head.split("\r\n")[0]:
        raise SystemExit(f"{method} {path}: {head.splitlines()[0]}")
    await reader.readexactly(int(head.split("content-length:")[1].split("\r\n")[0]))


async def main():
    for url in urls:
        netloc = urllib.parse.urlsplit(url).netloc
        host, port = netloc.rsplit(":", 1)
        streams = await asyncio.open_connection(host, int(port), ssl=context)
        if body:
            await ask(streams, netloc, "POST", "/big", data=body)
        for name in names.split():
            for _ in range(int(requests)):
                await ask(streams, netloc, "GET", f"/{name}", f"Authorization: Bearer {os.environ[name]}\r\n")
        if body:
            await ask(streams, netloc, "POST", "/big", data=body)
        streams[1].close()


asyncio.run(main())
