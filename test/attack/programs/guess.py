"""guess.py CA URL REQUESTS HEADERS: requests with that many headers, each a placeholder that is guessed."""

import os
import random
import sys

from client import Client

ca, url, requests, headers = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
own = os.environ["SECRET"]
letters = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ"
source = random.Random(7)
client = Client(ca, url)


def guess(number):
    # Every second is the own one but for its last letters.
    if number % 2:
        return own[:-4] + "".join(source.choices(letters, k=4))
    return "kloak:" + "".join(source.choices(letters, k=len(own) - 6))


for number in range(requests):
    lines = "".join(f"X-{i}: {guess(i)}\r\n" for i in range(headers))
    client.tls.write(f"GET /{number} HTTP/1.1\r\nHost: {client.host}\r\n{lines}\r\n".encode())
    client.socket.sendall(client.outgoing.read())
    client.answer()
# The connection is as good as ever.
client.request("/own")
client.close()
