"""httpx with h2: one client, and so one connection, for each URL. See README.md for the arguments."""

import os
import sys

import httpx

ca, requests, big, names, *urls = sys.argv[1:]
header = os.environ.get("HEADER", "Authorization")
body = (b"0123456789abcdef" * (int(big) // 16 + 1))[: int(big)]

for url in urls:
    with httpx.Client(http1=False, http2=True, verify=ca, timeout=60, trust_env=False) as client:
        if body:
            client.post(f"{url}/big", content=body).raise_for_status()
        for name in names.split():
            for _ in range(int(requests)):
                answer = client.get(f"{url}/{name}", headers={header: "Bearer " + os.environ[name]})
                answer.raise_for_status()
                assert answer.http_version == "HTTP/2"
        if body:
            client.post(f"{url}/big", content=body).raise_for_status()
