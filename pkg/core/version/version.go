// SPDX-License-Identifier: Apache-2.0

// Package version says which build of l3edge a binary is.
package version

// Version is set by the linker (-X) from git describe; a plain go build says "devel".
var Version = "devel"
