<?php
// The curl extension: one connection for each URL. See README.md for the arguments.
[, $ca, $requests, $big, $names] = $argv;
$body = substr(str_repeat("0123456789abcdef", intdiv((int) $big, 16) + 1), 0, (int) $big);

function ask($curl, string $url, array $headers, string $body = ""): void
{
    curl_setopt_array($curl, [
        CURLOPT_URL => $url,
        CURLOPT_HTTPHEADER => $headers,
        CURLOPT_HTTPGET => $body === "",
        CURLOPT_POST => $body !== "",
    ] + ($body === "" ? [] : [CURLOPT_POSTFIELDS => $body]));
    if (curl_exec($curl) === false || curl_getinfo($curl, CURLINFO_RESPONSE_CODE) !== 200) {
        fwrite(STDERR, "$url: " . curl_error($curl) . "\n");
        exit(1);
    }
}

foreach (array_slice($argv, 5) as $url) {
    $curl = curl_init();
    curl_setopt_array($curl, [CURLOPT_CAINFO => $ca, CURLOPT_RETURNTRANSFER => true, CURLOPT_TIMEOUT => 60]);
    if ($body !== "") {
        ask($curl, "$url/big", ["Expect:"], $body);
    }
    foreach (explode(" ", $names) as $name) {
        for ($i = 0; $i < (int) $requests; $i++) {
            ask($curl, "$url/$name", ["Authorization: Bearer " . getenv($name)]);
        }
    }
    if ($body !== "") {
        ask($curl, "$url/big", ["Expect:"], $body);
    }
    curl_close($curl);
}
