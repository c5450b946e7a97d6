// SPDX-License-Identifier: Apache-2.0

package ipt

import (
	"bytes"
	"encoding/binary"
	"os"
	"slices"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Pulse is how large the nat tables of legacy iptables are in the namespace of the calling thread: another tool that flushes
// them or takes a rule away changes it, and nothing else tells of that. It costs two system calls for each family that has
// such a table, and makes none where there is none.
type Pulse struct{ v4, v6 getinfo }

// getinfo is struct ipt_getinfo of linux/netfilter_ipv4/ip_tables.h, and ip6t_getinfo, which is alike.
type getinfo struct {
	name                 [32]byte
	validHooks           uint32
	hookEntry, underflow [5]uint32
	entries, size        uint32
}

// soGetInfo is IPT_SO_GET_INFO and IP6T_SO_GET_INFO.
const soGetInfo = 64

// Feel reads the Pulse. What cannot be read is as if it were not there.
func Feel() Pulse {
	return Pulse{
		v4: feel("/proc/thread-self/net/ip_tables_names", unix.AF_INET, unix.SOL_IP),
		v6: feel("/proc/thread-self/net/ip6_tables_names", unix.AF_INET6, unix.SOL_IPV6),
	}
}

func feel(names string, family, level int) (info getinfo) {
	list, err := os.ReadFile(names)
	if err != nil || !slices.ContainsFunc(bytes.Split(list, []byte("\n")), func(n []byte) bool { return string(n) == "nat" }) {
		return getinfo{} // to ask for it would make it
	}
	fd, err := unix.Socket(family, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_RAW)
	if err != nil {
		return getinfo{}
	}
	defer unix.Close(fd) //nolint:errcheck // nothing was written
	copy(info.name[:], "nat")
	size := uint32(binary.Size(info)) //nolint:gosec // 84
	//nolint:gosec // the kernel writes no more than size bytes
	_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(fd), uintptr(level), soGetInfo, uintptr(unsafe.Pointer(&info)), uintptr(unsafe.Pointer(&size)), 0)
	if errno != 0 {
		return getinfo{}
	}
	return info
}
