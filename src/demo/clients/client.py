"""An ordinary client: client.py CA HOST PORT sends 20 requests and one to /hold over one connection."""

import http.client
import os
import ssl
import sys

ca, host, port = sys.argv[1:]
connection = http.client.HTTPSConnection(host, int(port), context=ssl.create_default_context(cafile=ca))
for path in [f"/v1/models?page={page}" for page in range(1, 21)] + ["/hold"]:
    connection.request("GET", path, headers={"Authorization": "Bearer " + os.environ["API_KEY"]})
    response = connection.getresponse()
    response.read()
    assert response.status == 200, response.status
