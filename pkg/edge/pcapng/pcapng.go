// SPDX-License-Identifier: Apache-2.0

// Package pcapng writes captures of several interfaces into one file that Wireshark opens.
package pcapng

import (
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
	"github.com/gopacket/gopacket/pcapgo"
)

// Interface is one place that frames were seen at.
type Interface struct{ Name, Description string }

// Writer writes one file. It is for one goroutine.
type Writer struct{ w *pcapgo.NgWriter }

// New begins a file of Ethernet frames, each cut at snap bytes.
func New(out io.Writer, program string, snap int, at []Interface) (*Writer, error) {
	if len(at) == 0 {
		return nil, errors.New("write pcapng: no interface")
	}
	all := make([]pcapgo.NgInterface, 0, len(at))
	for _, i := range at {
		all = append(all, pcapgo.NgInterface{
			Name: i.Name, Description: i.Description, LinkType: layers.LinkTypeEthernet, SnapLength: uint32(snap), //nolint:gosec // small
			TimestampResolution: 9, OS: "linux",
		})
	}
	w, err := pcapgo.NewNgWriterInterface(out, all[0], pcapgo.NgWriterOptions{SectionInfo: pcapgo.NgSectionInfo{Application: program, OS: "linux"}})
	if err != nil {
		return nil, fmt.Errorf("write pcapng: %w", err)
	}
	for _, i := range all[1:] {
		if _, err := w.AddInterface(i); err != nil {
			return nil, fmt.Errorf("write pcapng: %w", err)
		}
	}
	return &Writer{w}, nil
}

// Write adds a frame seen at the interface with that index, with a comment unless it is empty. length is the frame's on
// the wire.
func (w *Writer) Write(index int, at time.Time, data []byte, length int, comment string) error {
	var o pcapgo.NgPacketOptions
	if comment != "" {
		o.Comments = []string{comment}
	}
	ci := gopacket.CaptureInfo{Timestamp: at, CaptureLength: len(data), Length: length, InterfaceIndex: index}
	if err := w.w.WritePacketWithOptions(ci, data, o); err != nil {
		return fmt.Errorf("write pcapng: %w", err)
	}
	return nil
}

// Flush puts everything into the file.
func (w *Writer) Flush() error { return w.w.Flush() }
