package backup

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/espalier-ml/espalier/coordinator/files"
	"github.com/espalier-ml/espalier/coordinator/store"
	v1 "github.com/espalier-ml/espalier/proto/espalier/v1"
)

// records makes a store that names the files and returns its records.
func records(t testing.TB, named ...File) []byte {
	t.Helper()
	s, err := store.Open(t.Context(), store.Config{Dir: t.TempDir(), Bootstrap: true, NoSync: true, Election: 20 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	for deadline := time.Now().Add(time.Minute); s.Barrier(t.Context()) != nil; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("no leader")
		}
	}
	cmds := []*v1.Command{{TimeMs: 1, Op: &v1.Command_SubmitJob{SubmitJob: &v1.SubmitJob{Id: "j", RequestId: "r", Spec: &v1.JobSpec{Name: "j"}, Devices: []string{"local"}}}}}
	for _, f := range named {
		cmds = append(cmds, &v1.Command{TimeMs: 2, Op: &v1.Command_AddFiles{AddFiles: &v1.AddFiles{Files: []*v1.FileRef{{Hash: f.Hash, SizeBytes: f.SizeBytes}}}}})
	}
	results, err := s.Apply(t.Context(), cmds...)
	for _, r := range results {
		err = errors.Join(err, r.Err)
	}
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	if _, err := s.Backup(t.Context(), &b); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func fileOf(content string) File {
	sum := sha256.Sum256([]byte(content))
	return File{hex.EncodeToString(sum[:]), int64(len(content))}
}

// made is a backup of records with two files, one of them missing.
func made(t testing.TB) []byte {
	t.Helper()
	here, gone := fileOf(strings.Repeat("weights", 300)), fileOf("gone")
	r := records(t, here, gone)
	var b bytes.Buffer
	w, err := NewWriter(&b, Head{Version: "v", Made: time.Unix(1, 0).UTC()})
	if err != nil {
		t.Fatal(err)
	}
	w.Missing(gone)
	if err := errors.Join(w.Records(bytes.NewReader(r), int64(len(r))), w.File(here, strings.NewReader(strings.Repeat("weights", 300))), w.Close()); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestRestore(t *testing.T) {
	b := made(t)
	dir := filepath.Join(t.TempDir(), "data")
	s, err := Restore(t.Context(), dir, "r", bytes.NewReader(b))
	if err != nil {
		t.Fatal(err)
	}
	gone := fileOf("gone")
	if s.Jobs != 1 || s.Files != 1 || s.Replica != "r" || s.Applied == 0 || len(s.Lacking) != 1 || s.Lacking[0] != gone || s.Missing[0] != gone || s.Head.Version != "v" {
		t.Errorf("summary %+v", s)
	}
	kept, err := files.Open(files.Config{Dir: filepath.Join(dir, filesDir)})
	if err != nil {
		t.Fatal(err)
	}
	if f := fileOf(strings.Repeat("weights", 300)); !kept.Has(f.Hash) || kept.Has(gone.Hash) {
		t.Error("the files are not those of the backup")
	}
	if err := Unfinished(dir); err != nil {
		t.Error(err)
	}
	st, err := store.Open(t.Context(), store.Config{Dir: filepath.Join(dir, raftDir), Bootstrap: true, Election: 20 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	defer st.Close()
	for deadline := time.Now().Add(time.Minute); st.Barrier(t.Context()) != nil; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("it does not lead")
		}
	}
	err = st.View(func(v *store.View) error {
		if v.Job("j") == nil || st.ID() != "r" {
			t.Errorf("replica %s without the job", st.ID())
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
	if _, err := Restore(t.Context(), dir, "r", bytes.NewReader(b)); !errors.Is(err, ErrNotEmpty) {
		t.Errorf("restore again: %v, want ErrNotEmpty", err)
	}
}

// TestUnfinished: a restore that died leaves a folder that a server refuses and a further restore cleans.
func TestUnfinished(t *testing.T) {
	b := made(t)
	dir := t.TempDir()
	for _, d := range []string{unfinishedDir + "/raft", "files/ab"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if err := Unfinished(dir); !errors.Is(err, ErrUnfinished) {
		t.Errorf("%v, want ErrUnfinished", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Restore(ctx, dir, "", bytes.NewReader(b)); !errors.Is(err, context.Canceled) {
		t.Errorf("a restore that was given up: %v", err)
	}
	if names, _ := os.ReadDir(dir); len(names) > 0 {
		t.Errorf("left behind: %v", names)
	}
	if _, err := Restore(t.Context(), dir, "", bytes.NewReader(b)); err != nil {
		t.Error(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "precious"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
}

// TestRecordsAlone: what builds before this one wrote.
func TestRecordsAlone(t *testing.T) {
	f := fileOf("x")
	s, err := Verify(t.Context(), bytes.NewReader(records(t, f)))
	if err != nil || s.Jobs != 1 || !s.Head.RecordsOnly || len(s.Lacking) != 1 || s.Lacking[0] != f {
		t.Errorf("%+v, %v", s, err)
	}
	if s, err := Restore(t.Context(), t.TempDir(), "", bytes.NewReader(records(t, f))); err != nil || s.Replica == "" || len(s.Lacking) != 1 {
		t.Errorf("%+v, %v", s, err)
	}
}

func TestDamage(t *testing.T) {
	b := made(t)
	if _, err := Verify(t.Context(), bytes.NewReader(b)); err != nil {
		t.Fatal(err)
	}
	check := func(name string, data []byte, want error) {
		t.Helper()
		if _, err := Verify(t.Context(), bytes.NewReader(data)); !errors.Is(err, want) {
			t.Errorf("verify %s: %v, want %v", name, err, want)
		}
		dir := t.TempDir()
		if _, err := Restore(t.Context(), dir, "", bytes.NewReader(data)); !errors.Is(err, want) {
			t.Errorf("restore %s: %v, want %v", name, err, want)
		}
		if names, _ := os.ReadDir(dir); len(names) > 0 {
			t.Errorf("restore %s leaves %v", name, names)
		}
	}
	check("nothing", nil, ErrForeign)
	check("text", []byte("hello\n"), ErrForeign)
	check("half of records alone", []byte("ESPSTATE\x01"), ErrDamaged)
	var other bytes.Buffer
	tw := tar.NewWriter(&other)
	if err := errors.Join(tw.WriteHeader(&tar.Header{Name: "x", Mode: 0o600}), tw.Close()); err != nil {
		t.Fatal(err)
	}
	check("another archive", other.Bytes(), ErrForeign)
	newer := bytes.Replace(b, []byte(`{"format":1`), []byte(`{"format":9`), 1)
	check("a newer one", newer, ErrNewer)
	for at := 512; at < len(b)-2048; at += 512 {
		if _, err := Verify(t.Context(), bytes.NewReader(b[:at])); !errors.Is(err, ErrDamaged) && !errors.Is(err, ErrForeign) {
			t.Errorf("cut at %d: %v", at, err)
		}
	}
	// Any bit of a content counts; padding and the archive's own times do not.
	for _, part := range []string{"ESPSTATE", "weightsweights", `"missing"`, `"version":"v"`} {
		at := bytes.Index(b, []byte(part))
		for _, off := range []int{0, len(part) - 1} {
			bad := bytes.Clone(b)
			bad[at+off] ^= 2
			if _, err := Verify(t.Context(), bytes.NewReader(bad)); !errors.Is(err, ErrDamaged) {
				t.Errorf("a bit of %s: %v, want ErrDamaged", part, err)
			}
		}
	}
}

// TestFullDisk: what cannot be written is said, and nothing is left.
func TestFullDisk(t *testing.T) {
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Skip("SKIPPED: no /dev/full")
	}
	defer full.Close()
	if st, err := full.Stat(); err != nil || st.Mode()&os.ModeCharDevice == 0 {
		t.Skip("SKIPPED: /dev/full is no device")
	}
	if _, err := NewWriter(full, Head{}); err == nil {
		t.Error("written to a full disk")
	}
}

func FuzzRead(f *testing.F) {
	// Read does not look into the records, so that small ones do.
	var small bytes.Buffer
	w, err := NewWriter(&small, Head{Version: "v"})
	if err != nil {
		f.Fatal(err)
	}
	if err := errors.Join(w.Records(strings.NewReader("records"), 7), w.File(fileOf("a file"), strings.NewReader("a file")), w.Close()); err != nil {
		f.Fatal(err)
	}
	b := small.Bytes()
	f.Add(b)
	f.Add(b[:700])
	f.Add([]byte("ESPSTATE\x01\x00"))
	f.Fuzz(func(t *testing.T, data []byte) {
		got := 0
		_, err := Read(bytes.NewReader(data), Visitor{
			Records: func(r io.Reader) error { _, err := io.Copy(io.Discard, r); return err },
			File: func(f File, r io.Reader) error {
				got++
				c, err := io.ReadAll(r)
				if err == nil && fileOf(string(c)) != f {
					t.Errorf("file %s is wrong and was not refused", f.Hash)
				}
				return err
			},
		})
		if err != nil && !errors.Is(err, ErrForeign) && !errors.Is(err, ErrNewer) && !errors.Is(err, ErrDamaged) {
			t.Errorf("%v has no name", err)
		}
	})
}
