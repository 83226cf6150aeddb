// The client that README.md beside this file describes, with Go's own TLS and net/http.
package main

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net/http"
	"os"
	"strconv"
	"strings"
)

func main() {
	if err := run(os.Args[1], os.Args[2], os.Args[3], os.Args[4], os.Args[5:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(ca, requests, big, names string, urls []string) error {
	pem, err := os.ReadFile(ca)
	if err != nil {
		return err
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(pem)
	times, err := strconv.Atoi(requests)
	if err != nil {
		return err
	}
	upload, err := strconv.Atoi(big)
	if err != nil {
		return err
	}
	body := bytes.Repeat([]byte("0123456789abcdef"), upload/16)
	for _, url := range urls {
		transport := &http.Transport{
			TLSClientConfig: &tls.Config{RootCAs: roots, DynamicRecordSizingDisabled: os.Getenv("DYNAMIC") == ""},
			WriteBufferSize: 16 << 10,
		}
		client := &http.Client{Transport: transport}
		if len(body) > 0 {
			if err := send(client, "POST", url+"/big", "", body); err != nil {
				return err
			}
		}
		for _, name := range strings.Fields(names) {
			for i := 0; i < times; i++ {
				if err := send(client, "GET", url+"/"+name, os.Getenv(name), nil); err != nil {
					return err
				}
			}
		}
		if len(body) > 0 {
			if err := send(client, "POST", url+"/big", "", body); err != nil {
				return err
			}
		}
		transport.CloseIdleConnections()
	}
	return nil
}

func send(client *http.Client, method, url, secret string, body []byte) error {
	request, err := http.NewRequest(method, url, bytes.NewReader(body))
	if err != nil {
		return err
	}
	if secret != "" {
		request.Header.Set("Authorization", "Bearer "+secret)
	}
	response, err := client.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if _, err := io.Copy(io.Discard, response.Body); err != nil {
		return err
	}
	if response.StatusCode != 200 {
		return fmt.Errorf("%s: %s", url, response.Status)
	}
	return nil
}
