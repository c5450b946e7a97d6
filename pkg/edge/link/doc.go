// SPDX-License-Identifier: Apache-2.0

// Package link speaks rtnetlink: links, addresses and routes of the current network namespace, and nothing above them.
package link
