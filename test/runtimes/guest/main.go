// SPDX-License-Identifier: Apache-2.0

// Command guest is what the tests run inside containers beside the lab's web server: it answers datagrams, and tells
// which addresses it has.
package main

import (
	"fmt"
	"net"
	"os"
)

func main() {
	var err error
	switch {
	case len(os.Args) == 4 && os.Args[1] == "udp":
		err = answer(os.Args[2], os.Args[3])
	case len(os.Args) == 2 && os.Args[1] == "addresses":
		err = addresses()
	default:
		err = fmt.Errorf("usage: guest udp PORT NAME | guest addresses")
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "guest:", err)
		os.Exit(1)
	}
}

// answer answers every datagram with the name and whom it saw.
func answer(port, name string) error {
	conn, err := net.ListenPacket("udp", ":"+port)
	if err != nil {
		return err
	}
	fmt.Println(name, "answers datagrams on port", port)
	buf := make([]byte, 1500)
	for {
		_, client, err := conn.ReadFrom(buf)
		if err != nil {
			return err
		}
		if _, err := conn.WriteTo(fmt.Appendf(nil, "%s %s", name, client), client); err != nil {
			return err
		}
	}
}

// addresses prints all addresses of the network namespace but loopback and link-local ones, a line each.
func addresses() error {
	list, err := net.InterfaceAddrs()
	for _, a := range list {
		if p, ok := a.(*net.IPNet); ok && p.IP.IsGlobalUnicast() {
			fmt.Println(p.IP)
		}
	}
	return err
}
