"""two.py CA URL OTHER: connections to two servers at once; each record is sent on the one, then the other."""

import os
import sys

from client import Client

ca, url, other = sys.argv[1:]
secret = os.environ["SECRET"]
first, second = Client(ca, url), Client(ca, other)
for number in range(5):
    for client in (first, second):
        client.request(f"/{number}", secret)
    # Sealed at the same moment, and sent over crosswise: the bytes of one session on the other's connection at last.
    good, bad = first.seal(f"/both/{number}", secret), second.seal(f"/both/{number}", secret)
    first.socket.sendall(good)
    second.socket.sendall(bad)
    first.answer()
    second.answer()
second.socket.sendall(first.seal("/swapped", secret))
