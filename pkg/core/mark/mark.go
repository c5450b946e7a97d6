// SPDX-License-Identifier: Apache-2.0

// Package mark names everything l3edge owns in a kernel or on a disk, so that each part can tell its own from others'.
package mark

// Route protocol numbers (rtm_protocol, RFC 3549 section 3.1.1). Both lie outside the numbers that
// linux/rtnetlink.h and iproute2's rt_protos name, so FRR, BIRD or systemd-networkd may share the host.
const (
	RouteRouted  = 103 // routes that routed installs: what it learned by BGP, and its own blackholes
	RoutePortald = 104 // routes that portald installs: the way to the portal net from the node itself
)

// nftables tables; each daemon or plugin owns the tables under its name in families ip and ip6.
const (
	TableServices  = "l3edge"           // portald: VIPs
	TableHostPorts = "l3edge_hostports" // portal plugin: hostPorts
	TablePods      = "l3edge_pods"      // bridge-l3: source checks of pods
)

// iptables chains of the userspace portal, named as the article shows them, and those for NodePorts as kube-proxy named
// them soon after. The latter are there only when a NodePort is.
const (
	ChainPortalsContainer  = "KUBE-PORTALS-CONTAINER"
	ChainPortalsHost       = "KUBE-PORTALS-HOST"
	ChainNodePortContainer = "KUBE-NODEPORT-CONTAINER"
	ChainNodePortHost      = "KUBE-NODEPORT-HOST"
)

// Files and sockets. All of it lives on tmpfs: true exactly as long as the kernel that it describes.
const (
	RunDir        = "/run/l3edge"
	NodeFile      = RunDir + "/node.json"
	LeaseDir      = RunDir + "/leases"
	HostPortDir   = RunDir + "/hostports" // NETWORK/CONTAINER:INTERFACE says which hostPorts the attachment holds
	RoutedSocket  = RunDir + "/routed.sock"
	PortaldSocket = RunDir + "/portald.sock"
	APIServerFile = RunDir + "/api-server" // URL of the Kubernetes API server
	CNIConfDir    = "/etc/cni/net.d"
	CNIBinDir     = "/opt/cni/bin"
)

// HostLocalDir is where the reference plugin host-local keeps a directory for each network, with a file for each address: a
// node that comes from it has pods which still hold those.
const HostLocalDir = "/var/lib/cni/networks"

// ContainerHost is where a container finds what it sees of the host only read-only or not at all, if it has been given it:
// proc/sys/net, above all.
const ContainerHost = "/host"
