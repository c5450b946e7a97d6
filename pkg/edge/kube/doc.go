// SPDX-License-Identifier: Apache-2.0

// Package kube reads from a Kubernetes API server what a node answers and who it is, goes on reading, and tells the
// cluster how the node fares.
//
// Nothing that it says ever takes away more than the API server took away: while the server cannot be reached, whatever the
// reason and however long, everything that it said last stays in force.
package kube
