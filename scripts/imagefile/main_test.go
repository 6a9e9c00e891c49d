package main

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"testing"
	"time"
)

func files(t *testing.T, archive []byte) (contents map[string][]byte, headers map[string]*tar.Header) {
	t.Helper()
	contents, headers = map[string][]byte{}, map[string]*tar.Header{}
	for r := tar.NewReader(bytes.NewReader(archive)); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return contents, headers
		}
		if err != nil {
			t.Fatal(err)
		}
		if contents[h.Name], err = io.ReadAll(r); err != nil {
			t.Fatal(err)
		}
		headers[h.Name] = h
	}
}

func image(t *testing.T, o options) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := write(&b, o); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// TestImage reads an image as an engine does: every name and hash leads to what it says.
func TestImage(t *testing.T) {
	o := options{tag: "espalier:test", version: "1.2.3", revision: "abc", arch: "arm", binary: []byte("binary"), created: time.Unix(1_700_000_000, 0).UTC()}
	archive := image(t, o)
	if !bytes.Equal(archive, image(t, o)) {
		t.Error("the same input gives other bytes")
	}
	o.binary = []byte("other")
	if bytes.Equal(archive, image(t, o)) {
		t.Error("another binary gives the same bytes")
	}
	contents, _ := files(t, archive)
	var manifest []struct {
		Config           string
		RepoTags, Layers []string
	}
	if err := json.Unmarshal(contents["manifest.json"], &manifest); err != nil || len(manifest) != 1 || len(manifest[0].Layers) != 1 {
		t.Fatal(err, manifest)
	}
	m := manifest[0]
	var config struct {
		Architecture, Variant string
		Config                struct {
			User       string
			Entrypoint []string
			Labels     map[string]string
		}
		Rootfs struct {
			DiffIDs []string `json:"diff_ids"`
		}
	}
	if err := json.Unmarshal(contents[m.Config], &config); err != nil {
		t.Fatal(err)
	}
	layer := contents[m.Layers[0]]
	switch c := config; {
	case m.RepoTags[0] != "espalier:test", m.Config != digest(contents[m.Config])+".json", c.Rootfs.DiffIDs[0] != "sha256:"+digest(layer):
		t.Errorf("%+v %+v", m, config)
	case c.Architecture != "arm", c.Variant != "v7", c.Config.User != "65532:65532", c.Config.Entrypoint[0] != "/espalier",
		c.Config.Labels["org.opencontainers.image.version"] != "1.2.3":
		t.Errorf("%+v", config)
	}
	inside, headers := files(t, layer)
	if string(inside["espalier"]) != "binary" || headers["espalier"].Mode != 0o755 {
		t.Errorf("%q, %+v", inside["espalier"], headers["espalier"])
	}
	for name, want := range map[string]int64{"data/": 0o700, "cache/": 0o755, "tmp/": 0o1777, "host/": 0o755} {
		h := headers[name]
		if h == nil || h.Mode != want || (h.Uid != userID) != (name == "tmp/") || !h.ModTime.Equal(o.created) {
			t.Errorf("%s: %+v", name, h)
		}
	}
	if len(headers) != 7 {
		t.Errorf("%d entries, want 7", len(headers))
	}
}
