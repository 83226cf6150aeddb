<?php
// The https stream wrapper: a connection for each request, as it keeps none. See README.md for the arguments.
[, $ca, $requests, $big, $names] = $argv;
$body = substr(str_repeat("0123456789abcdef", intdiv((int) $big, 16) + 1), 0, (int) $big);

function ask(string $ca, string $url, array $headers, string $body = ""): void
{
    $http = ["method" => $body === "" ? "GET" : "POST", "header" => $headers, "timeout" => 60, "protocol_version" => 1.1];
    if ($body !== "") {
        $http["content"] = $body;
        $http["header"] = ["Content-Type: application/octet-stream"];
    }
    $context = stream_context_create(["http" => $http, "ssl" => ["cafile" => $ca]]);
    if (file_get_contents($url, false, $context) === false) {
        exit(1);
    }
}

foreach (array_slice($argv, 5) as $url) {
    if ($body !== "") {
        ask($ca, "$url/big", [], $body);
    }
    foreach (explode(" ", $names) as $name) {
        for ($i = 0; $i < (int) $requests; $i++) {
            ask($ca, "$url/$name", ["Connection: close", "Authorization: Bearer " . getenv($name)]);
        }
    }
    if ($body !== "") {
        ask($ca, "$url/big", [], $body);
    }
}
