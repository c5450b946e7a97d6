// SPDX-License-Identifier: Apache-2.0

package runtimes

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/l3edge/l3edge/pkg/lab"
	"github.com/l3edge/l3edge/pkg/lab/cri"
)

// The images: static programs of ours, so no registry is asked.
const webImage = "localhost/web:1" // the lab's web server, and guest

// saveImages writes the images as archives that every host of the lab sees.
func saveImages(t *testing.T) (files []string) {
	t.Helper()
	guest := filepath.Join(os.Getenv(binVar), "guest")
	for ref, programs := range map[string][]string{cri.PauseImage: {lab.Program("pause")}, webImage: {lab.Program("l3ctl"), guest}} {
		archive, err := cri.Image(ref, programs...)
		must(t, err)
		file := filepath.Join(lab.Dir, filepath.Base(programs[0])+".tar")
		must(t, os.WriteFile(file, archive, 0o644))
		files = append(files, file)
	}
	return files
}
