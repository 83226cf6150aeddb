"""websockets: python.py CA URL. A handshake with $TOKEN in Authorization, or in the URL if that ends with `=`; then messages
that have to come back as they were."""

import os
import ssl
import sys

from websockets.sync.client import connect

ca, url = sys.argv[1:]
token = os.environ["TOKEN"]
context = ssl.create_default_context(cafile=ca)
in_url = url.endswith("=")
headers = {} if in_url else {"Authorization": f"Bearer {token}"}
with connect(url + (token if in_url else ""), ssl=context, additional_headers=headers, proxy=None) as socket:
    for length in (0, 1, 125, 126, 65_535, 65_536, 300_000):
        sent = token + "x" * length
        socket.send(sent)
        assert socket.recv() == sent, "another message came back"
