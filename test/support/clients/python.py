"""http.client over ssl: one connection for each URL. See README.md for the arguments."""

import http.client
import os
import ssl
import sys
import urllib.parse

ca, requests, big, names, *urls = sys.argv[1:]
context = ssl.create_default_context(cafile=ca)
body = (b"0123456789abcdef" * (int(big) // 16 + 1))[: int(big)]


def ask(connection, method, path, headers, data=None):
    connection.request(method, path, body=data, headers=headers)
    response = connection.getresponse()
    response.read()
    if response.status != 200:
        raise SystemExit(f"{method} {path}: status {response.status}")


for url in urls:
    host, port = urllib.parse.urlsplit(url).netloc.rsplit(":", 1)
    connection = http.client.HTTPSConnection(host, int(port), context=context, timeout=60)
    if body:
        ask(connection, "POST", "/big", {}, body)
    for name in names.split():
        for _ in range(int(requests)):
            ask(connection, "GET", f"/{name}", {"Authorization": "Bearer " + os.environ[name]})
    if body:
        ask(connection, "POST", "/big", {}, body)
    connection.close()
