"""Many threads with a connection each: many.py CA THREADS REQUESTS NAME URL sends REQUESTS in all, each numbered in its path."""

import http.client
import itertools
import os
import ssl
import sys
import threading
import urllib.parse

ca, threads, requests, name, url = sys.argv[1:]
host, port = urllib.parse.urlsplit(url).netloc.rsplit(":", 1)
context = ssl.create_default_context(cafile=ca)
numbers = itertools.count()
failed = []


def work():
    connection = http.client.HTTPSConnection(host, int(port), context=context, timeout=120)
    while (number := next(numbers)) < int(requests):
        try:
            connection.request("GET", f"/{number}", headers={"Authorization": "Bearer " + os.environ[name]})
            response = connection.getresponse()
            response.read()
            if response.status != 200:
                failed.append(f"{number}: status {response.status}")
        except (OSError, http.client.HTTPException) as error:
            failed.append(f"{number}: {error!r}")
            connection.close()
    connection.close()


workers = [threading.Thread(target=work) for _ in range(int(threads))]
for worker in workers:
    worker.start()
for worker in workers:
    worker.join()
if failed:
    raise SystemExit(f"{len(failed)} requests failed; the first: {failed[0]}")
