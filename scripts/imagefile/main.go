// Command imagefile writes a container image around the static binary, from scratch: nothing else is in it but two
// folders for volumes. It needs no container engine, and the same binary, version and time give the same bytes.
package main

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"time"
)

// user is who runs in the container: nobody of the host.
const (
	userID   = 65532
	userName = "espalier"
)

// options are what goes into an image.
type options struct {
	tag, version, revision, arch, source string
	binary                               []byte
	created                              time.Time
}

func main() {
	var o options
	var binary, out string
	var created int64
	flag.StringVar(&o.tag, "tag", "espalier:latest", "name of the image")
	flag.StringVar(&o.version, "version", "unknown", "version of the binary")
	flag.StringVar(&o.revision, "revision", "", "commit that it was built from")
	flag.StringVar(&o.arch, "arch", "amd64", "amd64, arm64 or arm")
	flag.StringVar(&o.source, "source", "https://github.com/espalier-ml/espalier", "where the source is")
	flag.StringVar(&binary, "binary", "", "the static binary (required)")
	flag.Int64Var(&created, "created", 0, "time of everything in the image, in seconds since 1970")
	flag.StringVar(&out, "out", "", "file to write (required)")
	flag.Parse()
	if err := run(o, binary, out, created); err != nil {
		fmt.Fprintln(os.Stderr, "imagefile:", err)
		os.Exit(1)
	}
}

func run(o options, binary, out string, created int64) (err error) {
	if binary == "" || out == "" {
		return errors.New("--binary and --out are required")
	}
	if o.binary, err = os.ReadFile(binary); err != nil {
		return err
	}
	o.created = time.Unix(created, 0).UTC()
	f, err := os.Create(out)
	if err != nil {
		return err
	}
	return errors.Join(write(f, o), f.Close())
}

// write writes the image as an archive that engines load.
func write(w io.Writer, o options) error {
	layer, err := o.layer()
	if err != nil {
		return fmt.Errorf("write layer: %w", err)
	}
	config, err := json.Marshal(o.config(layer))
	if err != nil {
		return err
	}
	configName := digest(config) + ".json"
	layerName := digest(layer) + "/layer.tar"
	manifest, err := json.Marshal([]map[string]any{{"Config": configName, "RepoTags": []string{o.tag}, "Layers": []string{layerName}}})
	if err != nil {
		return err
	}
	t := tar.NewWriter(w)
	for _, f := range []struct {
		name string
		data []byte
	}{{configName, config}, {layerName, layer}, {"manifest.json", manifest}} {
		if err := o.add(t, &tar.Header{Name: f.name, Mode: 0o644}, f.data); err != nil {
			return err
		}
	}
	return t.Close()
}

func digest(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}

// layer is the file system.
func (o options) layer() ([]byte, error) {
	var b bytes.Buffer
	t := tar.NewWriter(&b)
	folder := func(name string, mode int64, owner int) (*tar.Header, []byte) {
		return &tar.Header{Typeflag: tar.TypeDir, Name: name, Mode: mode, Uid: owner, Gid: owner}, nil
	}
	for _, add := range []func() (*tar.Header, []byte){
		func() (*tar.Header, []byte) { return folder("cache/", 0o755, userID) },
		func() (*tar.Header, []byte) { return folder("data/", 0o700, userID) },
		func() (*tar.Header, []byte) { return &tar.Header{Name: "espalier", Mode: 0o755}, o.binary },
		func() (*tar.Header, []byte) { return folder("etc/", 0o755, 0) },
		func() (*tar.Header, []byte) {
			return &tar.Header{Name: "etc/passwd", Mode: 0o644}, fmt.Appendf(nil, "root:x:0:0::/:\n%s:x:%d:%d::/tmp:\n", userName, userID, userID)
		},
		func() (*tar.Header, []byte) { return folder("host/", 0o755, userID) },
		func() (*tar.Header, []byte) { return folder("tmp/", 0o1777, 0) },
	} {
		h, data := add()
		if err := o.add(t, h, data); err != nil {
			return nil, err
		}
	}
	return b.Bytes(), t.Close()
}

func (o options) add(t *tar.Writer, h *tar.Header, data []byte) error {
	h.Size, h.ModTime, h.Format = int64(len(data)), o.created, tar.FormatUSTAR
	if err := t.WriteHeader(h); err != nil {
		return err
	}
	_, err := t.Write(data)
	return err
}

// config says how the image runs.
func (o options) config(layer []byte) map[string]any {
	at := o.created.Format(time.RFC3339)
	out := map[string]any{
		"architecture": o.arch, "os": "linux", "created": at,
		"config": map[string]any{
			"User":       fmt.Sprint(userID, ":", userID),
			"Entrypoint": []string{"/espalier"},
			"Env":        []string{"HOME=/tmp", "XDG_CACHE_HOME=/cache", "PATH=/"},
			"WorkingDir": "/tmp",
			"Volumes":    map[string]any{"/cache": struct{}{}, "/data": struct{}{}, "/tmp": struct{}{}},
			"ExposedPorts": map[string]any{
				"8470/tcp": struct{}{}, "8471/tcp": struct{}{}, "8472/tcp": struct{}{}, "8473/tcp": struct{}{},
			},
			"Labels": map[string]string{
				"org.opencontainers.image.title":    "espalier",
				"org.opencontainers.image.version":  o.version,
				"org.opencontainers.image.revision": o.revision,
				"org.opencontainers.image.created":  at,
				"org.opencontainers.image.source":   o.source,
				"org.opencontainers.image.licenses": "Apache-2.0",
			},
		},
		"rootfs":  map[string]any{"type": "layers", "diff_ids": []string{"sha256:" + digest(layer)}},
		"history": []map[string]any{{"created": at, "comment": "scripts/image"}},
	}
	if o.arch == "arm" {
		out["variant"] = "v7"
	}
	return out
}
