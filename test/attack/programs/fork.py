"""fork.py CA URL: a session that is used by two processes, the one after the other; then threads that share sessions."""

import os
import sys
import threading

from client import Client

ca, url = sys.argv[1:]
client = Client(ca, url)
client.request("/parent/0")
if os.fork() == 0:
    client.request("/child/1")
    client.request("/child/2")
    os._exit(0)
if os.wait()[1] != 0:
    raise SystemExit("the child failed")
client.close()

# A session of its own for each process, begun after the fork; while the parent goes on with its own.
parent = Client(ca, url)
if os.fork() == 0:
    child = Client(ca, url)
    for number in range(10):
        child.request(f"/own/child/{number}")
    os._exit(0)
for number in range(10):
    parent.request(f"/own/parent/{number}")
if os.wait()[1] != 0:
    raise SystemExit("the child failed")

# Threads exchange their sessions: each makes the next request of the session that another has just used.
clients = [Client(ca, url) for _ in range(4)]
failed = []


def work(first):
    try:
        for number in range(8):
            with locks[(first + number) % 4]:
                clients[(first + number) % 4].request(f"/thread/{first}/{number}")
    except Exception as error:
        failed.append(error)


locks = [threading.Lock() for _ in clients]
threads = [threading.Thread(target=work, args=(first,)) for first in range(4)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
if failed:
    raise failed[0]

# Contexts are freed and their addresses used again.
for number in range(20):
    client = Client(ca, url)
    client.request(f"/again/{number}")
    client.close()
