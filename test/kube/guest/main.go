// SPDX-License-Identifier: Apache-2.0

// Command guest is what the tests run inside pods: a web server like the lab's that logs, also answers datagrams and ends
// as a good server does, and its client.
package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"
)

func main() {
	var err error
	switch {
	case len(os.Args) == 3 && os.Args[1] == "serve":
		err = serve(os.Args[2])
	case len(os.Args) == 3 && os.Args[1] == "get":
		err = get(os.Args[2])
	case len(os.Args) == 3 && os.Args[1] == "lookup":
		err = lookup(os.Args[2])
	default:
		err = fmt.Errorf("usage: guest serve PORT | guest get URL | guest lookup NAME")
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "guest:", err)
		os.Exit(1)
	}
}

// serve answers requests and datagrams on the port with who answers and whom it saw, until SIGTERM and a little longer:
// what was begun is finished.
func serve(port string) error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	answer := func(local net.Addr, client string) string {
		return fmt.Sprintf("container: guest\npod: %s\nnode: %s\naddress: %s\nclient: %s\n", os.Getenv("POD"), os.Getenv("NODE"), local, client)
	}
	s := &http.Server{Addr: ":" + port, ReadHeaderTimeout: 5 * time.Second, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		local, _ := r.Context().Value(http.LocalAddrContextKey).(net.Addr)
		if r.URL.Path != "/ready" {
			fmt.Println(r.Method, r.URL, "for", r.RemoteAddr)
		}
		fmt.Fprint(w, answer(local, r.RemoteAddr))
	})}
	conn, err := net.ListenPacket("udp", ":"+port)
	if err != nil {
		return err
	}
	go func() {
		buf := make([]byte, 1500)
		for {
			_, client, err := conn.ReadFrom(buf)
			if err != nil {
				return
			}
			_, _ = conn.WriteTo([]byte(answer(conn.LocalAddr(), client.String())), client)
		}
	}()
	ended := make(chan error, 1)
	go func() { ended <- s.ListenAndServe() }()
	fmt.Println("serving on port", port)
	select {
	case err := <-ended:
		return err
	case <-ctx.Done():
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		return s.Shutdown(ctx)
	}
}

func get(url string) error {
	c := http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	r, err := c.Get(url)
	if err != nil {
		return err
	}
	defer r.Body.Close() //nolint:errcheck // read only
	_, err = io.Copy(os.Stdout, r.Body)
	return err
}

func lookup(name string) error {
	list, err := net.LookupHost(name)
	fmt.Println(strings.Join(list, " "))
	return err
}
