// SPDX-License-Identifier: Apache-2.0

package pcapng

import (
	"bytes"
	"testing"
	"time"

	"github.com/gopacket/gopacket/pcapgo"
)

func TestWhatIsWrittenCanBeRead(t *testing.T) {
	var file bytes.Buffer
	w, err := New(&file, "l3ctl", 128, []Interface{{"pod web", "eth0"}, {"uplink", "ens18"}})
	if err != nil {
		t.Fatal(err)
	}
	at := time.Unix(1700000000, 123456789)
	frame := bytes.Repeat([]byte{7}, 60)
	if err := w.Write(1, at, frame, 1500, "connection 1"); err != nil {
		t.Fatal(err)
	}
	if err := w.Flush(); err != nil {
		t.Fatal(err)
	}
	r, err := pcapgo.NewNgReader(&file, pcapgo.NgReaderOptions{})
	if err != nil {
		t.Fatal(err)
	}
	data, ci, opts, err := r.ReadPacketDataWithOptions()
	if err != nil {
		t.Fatal(err)
	}
	i, err := r.Interface(1)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(data, frame) || !ci.Timestamp.Equal(at) || ci.Length != 1500 || i.Name != "uplink" || r.NInterfaces() != 2 || len(opts.Comments) != 1 || opts.Comments[0] != "connection 1" {
		t.Errorf("read %x at %v, %d bytes, on %q, %v", data, ci.Timestamp, ci.Length, i.Name, opts.Comments)
	}
	if _, err := New(&file, "l3ctl", 128, nil); err == nil {
		t.Error("a file without an interface is begun")
	}
}
