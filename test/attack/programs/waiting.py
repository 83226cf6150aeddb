"""waiting.py CA URL REQUESTS: that many requests on one connection, and one to /hold, which waits for its answer."""

import sys

from client import Client

ca, url, requests = sys.argv[1:]
client = Client(ca, url)
for number in range(int(requests)):
    client.request(f"/{number}")
client.request("/hold")
client.close()
