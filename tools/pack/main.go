// SPDX-License-Identifier: Apache-2.0

// Command pack writes a container image, as an OCI layout in one tar file, of static binaries: one variant for each
// directory that is given, named after its architecture. There is nothing else in the image, not even a shell.
//
//	pack -version=v1 -created=SECONDS -o image.tar [-with SOURCE=/path/in/image] dist/amd64 dist/arm64
package main

import (
	"archive/tar"
	"bytes"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// binDir is where the binaries lie in the image, and on its PATH.
const binDir = "/usr/local/bin"

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "pack:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	f := flag.NewFlagSet("pack", flag.ContinueOnError)
	out := f.String("o", "", "`file` to write")
	name := f.String("name", "l3edge", "`name` of the image, without its tag")
	ver := f.String("version", "devel", "`tag` of the image")
	created := f.Int64("created", 0, "`seconds` since 1970 that all files and the image bear, so that the same input gives the same image")
	var with []string
	f.Func("with", "a file more: `SOURCE=/path/in/image`; ARCH in SOURCE is the architecture; repeatable", func(s string) error {
		with = append(with, s)
		return nil
	})
	if err := f.Parse(args); err != nil {
		return err
	}
	if *out == "" || f.NArg() == 0 {
		return errors.New("say what to write (-o) and the directories of binaries")
	}
	var index v1.ImageIndex = mutate.IndexMediaType(empty.Index, types.OCIImageIndex)
	at := time.Unix(*created, 0).UTC()
	for _, dir := range f.Args() {
		arch := filepath.Base(dir)
		img, err := image(dir, arch, *ver, with, at)
		if err != nil {
			return fmt.Errorf("%s: %w", dir, err)
		}
		index = mutate.AppendManifests(index, mutate.IndexAddendum{Add: img, Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: "linux", Architecture: arch}}})
	}
	return write(*out, *name+":"+*ver, index)
}

// image is the variant for one architecture.
func image(dir, arch, version string, with []string, at time.Time) (v1.Image, error) {
	files := map[string]string{} // by path in the image
	bins, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	for _, b := range bins {
		if b.Type().IsRegular() {
			files[path.Join(binDir, b.Name())] = filepath.Join(dir, b.Name())
		}
	}
	if len(files) == 0 {
		return nil, errors.New("no binaries in it")
	}
	for _, w := range with {
		src, dst, ok := strings.Cut(w, "=")
		if !ok || !path.IsAbs(dst) {
			return nil, fmt.Errorf("-with %s: want SOURCE=/path", w)
		}
		files[path.Clean(dst)] = strings.ReplaceAll(src, "ARCH", arch)
	}
	data, err := archive(files, at)
	if err != nil {
		return nil, err
	}
	layer, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(data)), nil }, tarball.WithMediaType(types.OCILayer))
	if err != nil {
		return nil, err
	}
	img := mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), types.OCIConfigJSON)
	if img, err = mutate.AppendLayers(img, layer); err != nil {
		return nil, err
	}
	return mutate.ConfigFile(img, &v1.ConfigFile{
		OS: "linux", Architecture: arch, Created: v1.Time{Time: at},
		RootFS: v1.RootFS{Type: "layers", DiffIDs: diffIDs(img)}, History: []v1.History{{Created: v1.Time{Time: at}, CreatedBy: "make image"}},
		Config: v1.Config{
			Env: []string{"PATH=" + binDir},
			Labels: map[string]string{
				"org.opencontainers.image.title": "l3edge", "org.opencontainers.image.version": version, "org.opencontainers.image.licenses": "Apache-2.0",
				"org.opencontainers.image.source": "https://github.com/l3edge/l3edge", "org.opencontainers.image.description": "layer 3 to the edge",
			},
		},
	})
}

func diffIDs(img v1.Image) []v1.Hash {
	c, err := img.ConfigFile()
	if err != nil {
		panic("pack: an image made of plain values: " + err.Error())
	}
	return c.RootFS.DiffIDs
}

// archive is a tar file of the files and the directories that they lie in.
func archive(files map[string]string, at time.Time) ([]byte, error) {
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	dirs := map[string]bool{"/": true}
	var paths []string
	for p := range files {
		paths = append(paths, p)
		for d := path.Dir(p); !dirs[d]; d = path.Dir(d) {
			dirs[d] = true
			paths = append(paths, d+"/")
		}
	}
	slices.Sort(paths)
	for _, p := range paths {
		h := &tar.Header{Name: strings.TrimPrefix(p, "/"), Mode: 0o755, ModTime: at, Format: tar.FormatPAX, Typeflag: tar.TypeDir}
		var data []byte
		if src, ok := files[p]; ok {
			var err error
			if data, err = os.ReadFile(src); err != nil {
				return nil, err
			}
			info, err := os.Stat(src)
			if err != nil {
				return nil, err
			}
			h.Typeflag, h.Size, h.Mode = tar.TypeReg, int64(len(data)), int64(info.Mode().Perm()|0o444)&0o755
		}
		if err := w.WriteHeader(h); err != nil {
			return nil, err
		}
		if _, err := w.Write(data); err != nil {
			return nil, err
		}
	}
	return buf.Bytes(), w.Close()
}

// write puts the layout into one tar file, named as ctr, podman and skopeo read it. The name appears when all is written.
func write(out, ref string, index v1.ImageIndex) error {
	dir, err := os.MkdirTemp(filepath.Dir(out), ".image-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir) //nolint:errcheck // a temporary directory
	l, err := layout.Write(dir, mutate.IndexMediaType(empty.Index, types.OCIImageIndex))
	if err != nil {
		return err
	}
	if err := l.AppendIndex(index, layout.WithAnnotations(map[string]string{
		"io.containerd.image.name": "ghcr.io/l3edge/" + ref, "org.opencontainers.image.ref.name": ref[strings.LastIndex(ref, ":")+1:],
	})); err != nil {
		return err
	}
	tmp, err := os.Create(dir + ".tar") //nolint:gosec // beside the file that is asked for
	if err != nil {
		return err
	}
	w := tar.NewWriter(tmp)
	err = filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		rel, err := filepath.Rel(dir, p)
		if err != nil {
			return err
		}
		data, err := os.ReadFile(p) //nolint:gosec // just written
		if err != nil {
			return err
		}
		if err := w.WriteHeader(&tar.Header{Name: rel, Mode: 0o644, Size: int64(len(data)), Typeflag: tar.TypeReg}); err != nil {
			return err
		}
		_, err = w.Write(data)
		return err
	})
	if err := errors.Join(err, w.Close(), tmp.Close()); err != nil {
		return errors.Join(err, os.Remove(tmp.Name()))
	}
	return os.Rename(tmp.Name(), out)
}
