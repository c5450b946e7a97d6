// SPDX-License-Identifier: Apache-2.0

// Package kubeobj turns Kubernetes API objects into our plain values; it reads no file and asks no API server.
//
// Errors are joined, one for each mistake, and each begins with the path of the field: "spec.ports[0].port: ...".
package kubeobj
