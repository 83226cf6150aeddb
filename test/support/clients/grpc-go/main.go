// The client that README.md beside this folder describes, with gRPC-Go: one connection for each URL.
package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
)

// asIs takes messages that are bytes already.
type asIs struct{}

func (asIs) Marshal(v any) ([]byte, error) { return *v.(*[]byte), nil }
func (asIs) Unmarshal(data []byte, v any) error {
	*v.(*[]byte) = bytes.Clone(data)
	return nil
}
func (asIs) Name() string { return "as-is" }

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
	length, err := strconv.Atoi(big)
	if err != nil {
		return err
	}
	header := os.Getenv("HEADER")
	if header == "" {
		header = "authorization"
	}
	message := bytes.Repeat([]byte("0123456789abcdef"), length/16)
	for _, url := range urls {
		target := strings.TrimPrefix(url, "https://")
		secure := credentials.NewTLS(&tls.Config{RootCAs: roots})
		connection, err := grpc.NewClient(target, grpc.WithTransportCredentials(secure))
		if err != nil {
			return err
		}
		defer connection.Close()
		if length > 0 {
			if err := call(connection, "big", message, nil); err != nil {
				return err
			}
		}
		for _, name := range strings.Fields(names) {
			for range times {
				with := metadata.Pairs(header, "Bearer "+os.Getenv(name))
				if err := call(connection, name, []byte("hello"), with); err != nil {
					return err
				}
			}
		}
		if length > 0 {
			if err := call(connection, "big", message, nil); err != nil {
				return err
			}
		}
	}
	return nil
}

func call(connection *grpc.ClientConn, method string, sent []byte, with metadata.MD) error {
	limited, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	var answer []byte
	outgoing := metadata.NewOutgoingContext(limited, with)
	if err := connection.Invoke(outgoing, "/test.Echo/"+method, &sent, &answer, grpc.ForceCodec(asIs{})); err != nil {
		return err
	}
	if !bytes.Equal(sent, answer) {
		return errors.New("another message came back")
	}
	return nil
}
