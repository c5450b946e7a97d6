// SPDX-License-Identifier: Apache-2.0

// Package nft programs nftables over netlink, as elements of few shared maps: a portal.Table for portald, hostPorts for
// the portal plugin. It knows only the tables that are ours.
//
// The messages are encoded here and not by a library for three reasons that were measured: one acknowledgement for a
// whole transaction (an acknowledgement for each message overruns the socket although the kernel committed), element
// lists of any length, and a plugin that starts without reflection or a second netlink stack. Numbers are those of
// linux/netfilter/nf_tables.h.
package nft
