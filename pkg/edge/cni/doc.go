// SPDX-License-Identifier: Apache-2.0

// Package cni speaks the Container Network Interface protocol for a plugin: environment and stdin in, result and error codes out.
//
// It is written against the specification (versions 0.3.0 to 1.1.0, github.com/containernetworking/cni/blob/main/SPEC.md)
// and not on its Go library, whose initialisation alone costs a tenth of a pod's ADD; tests hold it to that library.
// Only this package chooses error codes. A plugin is a set of verbs:
//
//	func main() { cni.Main("portal", cni.Verbs{Add: add, Del: del, Check: check, GC: gc, Status: status}) }
package cni
