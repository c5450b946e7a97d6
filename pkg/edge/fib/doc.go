// SPDX-License-Identifier: Apache-2.0

// Package fib is the kernel's routing tables, IPv4 and IPv6, as far as they are ours: routes that carry mark.RouteRouted.
//
// It never touches a route of another protocol: additions are exclusive (NLM_F_EXCL) and carry a metric of our own,
// removals name the protocol, and only what was seen as ours is replaced. Requests go in batches over one kept socket.
package fib
