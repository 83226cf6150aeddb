"""A connected TCP socket that changes hands over a Unix socket at PATH.

pass.py give PATH CA URL   connects to URL, says so, gives the socket away and keeps it open until standard input ends
pass.py take PATH CA URL   takes it, makes a TLS session and a request on it
"""

import socket
import sys
import urllib.parse

from client import Client

how, path, ca, url = sys.argv[1:]
if how == "give":
    parts = urllib.parse.urlsplit(url)
    connection = socket.create_connection((parts.hostname, parts.port))
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen()
    print("listening", flush=True)
    taker, _ = listener.accept()
    socket.send_fds(taker, [b"x"], [connection.fileno()])
    sys.stdin.read()
else:
    giver = socket.socket(socket.AF_UNIX)
    giver.connect(path)
    _, (descriptor,), _, _ = socket.recv_fds(giver, 1, 1)
    Client(ca, url, connection=socket.socket(fileno=descriptor)).request("/taken")
