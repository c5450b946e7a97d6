// SPDX-License-Identifier: Apache-2.0

// Package kubeproxy only names the version of kube-proxy that portald is measured against.
package kubeproxy
