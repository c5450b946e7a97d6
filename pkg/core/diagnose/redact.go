// SPDX-License-Identifier: Apache-2.0

package diagnose

import "regexp"

// secret is a word that announces one, and the value behind it. A passwordFile names a file and is none.
var secret = regexp.MustCompile(`(?i)("?\b(?:[\w-]*(?:password|passwd|secret|token)|authentication-key|private-key|md5)"?)([ \t]*[:=][ \t]*|[ \t]+)("[^"]*"|'[^']*'|\S+)`)

// Redact takes secrets out of a configuration or a log, so that it can be given away.
func Redact(text string) string { return secret.ReplaceAllString(text, "$1$2(removed)") }
