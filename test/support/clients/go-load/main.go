// Go under load, on crypto/tls itself:
//
//	many CA CONNECTIONS REQUESTS NAME URL    REQUESTS in all, each numbered in its path and sent by a new goroutine,
//	                                         whose small stack grows on the way, while the collector never rests
//	fill CA NAME URL FIRST LAST STEP         a connection for each number: that many bytes stand before the secret
package main

import (
	"bufio"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
)

func main() {
	var err error
	switch args := os.Args[2:]; os.Args[1] {
	case "many":
		err = many(config(args[0]), number(args[1]), number(args[2]), os.Getenv(args[3]), args[4])
	case "fill":
		err = fill(config(args[0]), os.Getenv(args[1]), args[2], number(args[3]), number(args[4]), number(args[5]))
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func number(text string) int {
	value, err := strconv.Atoi(text)
	if err != nil {
		panic(err)
	}
	return value
}

func config(ca string) *tls.Config {
	pem, err := os.ReadFile(ca)
	if err != nil {
		panic(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(pem)
	return &tls.Config{RootCAs: roots}
}

type session struct {
	*tls.Conn
	answers *bufio.Reader
	host    string
}

func dial(config *tls.Config, target string) (*session, error) {
	parsed, err := url.Parse(target)
	if err != nil {
		return nil, err
	}
	conn, err := tls.Dial("tcp", parsed.Host, config)
	if err != nil {
		return nil, err
	}
	return &session{conn, bufio.NewReader(conn), parsed.Hostname()}, nil
}

// One call of Write, which crypto/tls cuts into records as it sees fit.
func (s *session) ask(path, headers string) error {
	if _, err := io.WriteString(s, "GET "+path+" HTTP/1.1\r\nHost: "+s.host+"\r\n"+headers+"\r\n"); err != nil {
		return err
	}
	response, err := http.ReadResponse(s.answers, nil)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if response.StatusCode != 200 {
		return fmt.Errorf("%s: %s", path, response.Status)
	}
	_, err = io.Copy(io.Discard, response.Body)
	return err
}

func many(config *tls.Config, connections, requests int, secret, target string) error {
	debug.SetGCPercent(1)
	runtime.GOMAXPROCS(4)
	done := make(chan struct{})
	defer close(done)
	go func() {
		for {
			select {
			case <-done:
				return
			default:
				runtime.GC()
			}
		}
	}()
	var next int64
	var wait sync.WaitGroup
	failed := make(chan error, connections)
	for i := 0; i < connections; i++ {
		wait.Add(1)
		go func() {
			defer wait.Done()
			session, err := dial(config, target)
			for err == nil {
				n := int(atomic.AddInt64(&next, 1))
				if n > requests {
					session.Close()
					return
				}
				answer := make(chan error)
				go func() {
					answer <- deeper(n%64, func() error {
						return session.ask(fmt.Sprintf("/%d", n), "Authorization: Bearer "+secret+"\r\n")
					})
				}()
				err = <-answer
			}
			failed <- err
		}()
	}
	wait.Wait()
	select {
	case err := <-failed:
		return err
	default:
		return nil
	}
}

//go:noinline
func deeper(levels int, act func() error) error {
	var room [128]byte
	if levels == 0 {
		return act()
	}
	err := deeper(levels-1, act)
	room[levels] = 1
	runtime.KeepAlive(&room)
	return err
}

func fill(config *tls.Config, secret, target string, first, last, step int) error {
	for bytes := first; bytes <= last; bytes += step {
		session, err := dial(config, target)
		if err != nil {
			return err
		}
		headers := "X-Fill: " + strings.Repeat("x", bytes) + "\r\nAuthorization: Bearer " + secret + "\r\n"
		if err := session.ask(fmt.Sprintf("/%d", bytes), headers); err != nil {
			return err
		}
		session.Close()
	}
	return nil
}
