package cache

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/espalier-ml/espalier/client"
	"github.com/espalier-ml/espalier/client/clienttest"
	espalierv1 "github.com/espalier-ml/espalier/proto/espalier/v1"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// source hands out files and counts.
type source struct {
	mu     sync.Mutex
	files  map[string][]byte
	counts map[string]int
	fail   func(hash string) error
	gate   chan struct{}
}

func (s *source) put(text string) *espalierv1.FileRef {
	if s.files == nil {
		s.files, s.counts = map[string][]byte{}, map[string]int{}
	}
	ref := client.HashBytes([]byte(text), "data")
	s.files[ref.GetHash()] = []byte(text)
	return ref
}

func (s *source) fetch(ctx context.Context, ref *espalierv1.FileRef, path string) error {
	s.mu.Lock()
	data, ok := s.files[ref.GetHash()]
	s.counts[ref.GetHash()]++
	s.mu.Unlock()
	if s.gate != nil {
		select {
		case <-s.gate:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	if s.fail != nil {
		if err := s.fail(ref.GetHash()); err != nil {
			return err
		}
	}
	if !ok {
		return errors.New("no such file")
	}
	return os.WriteFile(path, data, 0o644)
}

func open(t *testing.T, dir string, max int64, s *source) *Cache {
	t.Helper()
	c, err := Open(Config{Dir: dir, MaxBytes: max, Fetch: s.fetch})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

func get(t *testing.T, c *Cache, ref *espalierv1.FileRef) *File {
	t.Helper()
	f, err := c.Get(t.Context(), ref)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func onDisk(t *testing.T, dir string) (names []string, bytes int64) {
	t.Helper()
	paths, _ := filepath.Glob(filepath.Join(dir, "files", "*", "*"))
	for _, p := range paths {
		info, err := os.Stat(p)
		if err != nil {
			t.Fatal(err)
		}
		names, bytes = append(names, filepath.Base(p)), bytes+info.Size()
	}
	return names, bytes
}

func TestLeastRecentlyUsedGoes(t *testing.T) {
	s, dir := &source{}, t.TempDir()
	a, b, d := s.put("aaaa"), s.put("bbbb"), s.put("dddd")
	c := open(t, dir, 8, s)
	get(t, c, a).Release()
	get(t, c, b).Release()
	get(t, c, a).Release()
	get(t, c, d).Release() // b goes
	get(t, c, a).Release()
	if s.counts[a.GetHash()] != 1 || s.counts[b.GetHash()] != 1 {
		t.Fatalf("fetched %v", s.counts)
	}
	get(t, c, b).Release()
	if s.counts[b.GetHash()] != 2 {
		t.Fatal("b was not evicted")
	}
	if names, n := onDisk(t, dir); len(names) != 2 || n != 8 || c.Bytes() != 8 {
		t.Fatalf("on disk %v, %d bytes, cache says %d", names, n, c.Bytes())
	}
}

func TestInUseStays(t *testing.T) {
	s := &source{}
	a, b, big := s.put("aaaa"), s.put("bbbb"), s.put("123456789")
	c := open(t, t.TempDir(), 8, s)
	fa, fb := get(t, c, a), get(t, c, b)
	d := s.put("d")
	if _, err := c.Get(t.Context(), d); !errors.Is(err, ErrFull) {
		t.Fatalf("error %v, want ErrFull", err)
	}
	if _, err := c.Get(t.Context(), big); !errors.Is(err, ErrTooLarge) {
		t.Fatalf("error %v, want ErrTooLarge", err)
	}
	fb.Release()
	fb.Release()
	get(t, c, d).Release()
	if got, err := os.ReadFile(fa.Path); err != nil || string(got) != "aaaa" {
		t.Fatalf("the file in use reads %q, %v", got, err)
	}
	fa.Release()
}

func TestUnknownSizeCountsWhenKnown(t *testing.T) {
	s := &source{}
	a, b := s.put("aaaa"), s.put("bbbbbb")
	c := open(t, t.TempDir(), 8, s)
	fa := get(t, c, &espalierv1.FileRef{Hash: a.GetHash()})
	if c.Bytes() != 4 {
		t.Fatalf("cache says %d bytes, want 4", c.Bytes())
	}
	if _, err := c.Get(t.Context(), &espalierv1.FileRef{Hash: b.GetHash()}); !errors.Is(err, ErrFull) {
		t.Fatalf("error %v, want ErrFull", err)
	}
	fa.Release()
	get(t, c, &espalierv1.FileRef{Hash: b.GetHash()}).Release()
	if c.Bytes() != 6 {
		t.Fatalf("cache says %d bytes, want 6", c.Bytes())
	}
}

func TestOneDownloadForAll(t *testing.T) {
	s := &source{gate: make(chan struct{})}
	ref := s.put("shared")
	c := open(t, t.TempDir(), 100, s)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			f, err := c.Get(t.Context(), ref)
			if err != nil {
				t.Error(err)
				return
			}
			f.Release()
		})
	}
	close(s.gate)
	wg.Wait()
	if s.counts[ref.GetHash()] != 1 {
		t.Fatalf("fetched %d times", s.counts[ref.GetHash()])
	}
}

func TestWaiterTakesOver(t *testing.T) {
	s := &source{gate: make(chan struct{})}
	ref := s.put("shared")
	c := open(t, t.TempDir(), 100, s)
	ctx, cancel := context.WithCancel(t.Context())
	first := make(chan error, 1)
	go func() {
		_, err := c.Get(ctx, ref)
		first <- err
	}()
	eventually(t, func() bool { s.mu.Lock(); defer s.mu.Unlock(); return s.counts[ref.GetHash()] == 1 })
	second := make(chan error, 1)
	go func() {
		f, err := c.Get(t.Context(), ref)
		if err == nil {
			f.Release()
		}
		second <- err
	}()
	cancel()
	if err := <-first; !errors.Is(err, context.Canceled) {
		t.Fatalf("first: %v", err)
	}
	close(s.gate)
	if err := <-second; err != nil {
		t.Fatalf("second: %v", err)
	}
}

func eventually(t *testing.T, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("never happened")
		}
	}
}

func TestRestart(t *testing.T) {
	s, dir := &source{}, t.TempDir()
	a, b, d := s.put("aaaa"), s.put("bbbb"), s.put("dddd")
	c := open(t, dir, 12, s)
	fb := get(t, c, b)
	get(t, c, d).Release()
	fa := get(t, c, a)
	if _, err := Open(c.cfg); !errors.Is(err, ErrInUse) {
		t.Fatalf("error %v, want ErrInUse", err)
	}
	fa.Release()
	fb.Release()
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	// b was used first of all, a is damaged, and something strange lies there.
	old := time.Now().Add(-time.Hour)
	if err := errors.Join(os.Chtimes(fb.Path, old, old), os.WriteFile(fa.Path, []byte("aXaa"), 0o644),
		os.WriteFile(filepath.Join(dir, "files", "junk"), []byte("x"), 0o644)); err != nil {
		t.Fatal(err)
	}
	c = open(t, dir, 8, s)
	if names, _ := onDisk(t, dir); len(names) != 2 || c.Bytes() != 8 {
		t.Fatalf("kept %v, %d bytes", names, c.Bytes())
	}
	get(t, c, d).Release()
	f := get(t, c, a)
	if got, _ := os.ReadFile(f.Path); string(got) != "aaaa" {
		t.Fatalf("damaged file given out: %q", got)
	}
	f.Release()
	if s.counts[d.GetHash()] != 1 || s.counts[a.GetHash()] != 2 {
		t.Fatalf("fetched %v", s.counts)
	}
	if names, _ := filepath.Glob(filepath.Join(dir, "files", "junk")); names != nil {
		t.Fatal("junk was kept")
	}
}

func TestFullDisk(t *testing.T) {
	s := &source{}
	a, b, d := s.put("aaaa"), s.put("bbbb"), s.put("dddd")
	dir := t.TempDir()
	c := open(t, dir, 100, s)
	fa := get(t, c, a)
	get(t, c, b).Release()
	// The disk has room for two files.
	s.fail = func(string) error {
		if names, _ := onDisk(t, dir); len(names) >= 2 {
			return fmt.Errorf("write: %w", syscall.ENOSPC)
		}
		return nil
	}
	fd := get(t, c, d) // b goes
	if names, _ := onDisk(t, dir); len(names) != 2 {
		t.Fatalf("on disk: %v", names)
	}
	if _, err := c.Get(t.Context(), b); !errors.Is(err, ErrDiskFull) || !errors.Is(err, syscall.ENOSPC) {
		t.Fatalf("error %v, want ErrDiskFull", err)
	}
	fa.Release()
	fd.Release()
	get(t, c, b).Release()
	if _, n := onDisk(t, dir); n != c.Bytes() {
		t.Fatalf("%d bytes on disk, cache says %d", n, c.Bytes())
	}
}

func TestWrongFileIsRefused(t *testing.T) {
	s, dir := &source{}, t.TempDir()
	ref := s.put("right")
	s.files[ref.GetHash()] = []byte("wrong")
	c := open(t, dir, 100, s)
	if _, err := c.Get(t.Context(), ref); !errors.Is(err, client.ErrHash) {
		t.Fatalf("error %v, want ErrHash", err)
	}
	if c.Bytes() != 0 {
		t.Fatalf("cache says %d bytes", c.Bytes())
	}
	if parts, _ := os.ReadDir(filepath.Join(dir, "parts")); len(parts) > 0 {
		t.Fatalf("left behind %v", parts)
	}
	if _, err := c.Get(t.Context(), &espalierv1.FileRef{Hash: "../x"}); !errors.Is(err, client.ErrHash) {
		t.Fatalf("error %v, want ErrHash", err)
	}
}

func TestAdd(t *testing.T) {
	s := &source{}
	c := open(t, t.TempDir(), 100, s)
	f, err := c.Add(t.Context(), []byte("made here"), "esp")
	if err != nil {
		t.Fatal(err)
	}
	again := get(t, c, f.Ref)
	if got, _ := os.ReadFile(again.Path); string(got) != "made here" || f.Ref.GetFormat() != "esp" {
		t.Fatalf("read %q, %v", got, f.Ref)
	}
	again.Release()
	f.Release()
}

func TestOverTheNetwork(t *testing.T) {
	srv := clienttest.New(t)
	cl, err := client.New(client.Config{Addresses: []string{srv.URL}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cl.Close)
	c, err := Open(Config{Dir: t.TempDir(), MaxBytes: 1 << 20, Fetch: cl.Download})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	data := bytes.Repeat([]byte("0123456789"), 50_000)
	ref := srv.Put(data, "data")
	srv.Cut(200_000)
	f := get(t, c, ref)
	defer f.Release()
	if got, err := os.ReadFile(f.Path); err != nil || !bytes.Equal(got, data) {
		t.Fatalf("read %d bytes, error %v", len(got), err)
	}
}

// TestManyUsers checks under load that the bound holds whenever it can and that
// no file in use is ever missing or wrong.
func TestManyUsers(t *testing.T) {
	s, dir := &source{}, t.TempDir()
	var refs []*espalierv1.FileRef
	for i := range 20 {
		refs = append(refs, s.put(fmt.Sprintf("file number %02d", i)))
	}
	const bound = 14 * 8
	c := open(t, dir, bound, s)
	var wg sync.WaitGroup
	var over atomic.Int64
	for u := range 6 {
		wg.Go(func() {
			r := rand.New(rand.NewPCG(7, uint64(u)))
			for range 100 {
				ref := refs[r.IntN(len(refs))]
				f, err := c.Get(t.Context(), ref)
				if err != nil {
					t.Error(err)
					return
				}
				if got, err := os.ReadFile(f.Path); err != nil || !bytes.Equal(got, s.files[ref.GetHash()]) {
					t.Errorf("read %q, %v", got, err)
				}
				if c.Bytes() > bound {
					over.Add(1)
				}
				f.Release()
			}
		})
	}
	wg.Wait()
	if over.Load() > 0 {
		t.Errorf("over the bound %d times", over.Load())
	}
	if _, n := onDisk(t, dir); n != c.Bytes() {
		t.Errorf("%d bytes on disk, cache says %d", n, c.Bytes())
	}
}

// TestCrashImages: whatever a crash, or a bad disk, left in the folder, what the cache gives is what the hash names.
func TestCrashImages(t *testing.T) {
	s := &source{}
	text := strings.Repeat("a file of the cluster ", 500)
	ref := s.put(text)
	hash := ref.GetHash()
	images, parts := 0, 40
	if testing.Short() {
		parts = 5
	}
	base, err := os.MkdirTemp("/dev/shm", "espalier-crash-*")
	if err != nil {
		base = t.TempDir()
	}
	t.Cleanup(func() { _ = os.RemoveAll(base) })
	for n := 0; n <= len(text); n += 1 + len(text)/parts {
		flipped := []byte(text)
		flipped[n%len(text)] ^= 4
		for _, b := range [][]byte{
			[]byte(text[:n]), append([]byte(text[:n]), make([]byte, len(text)-n)...), flipped, []byte(text + text[:n]),
		} {
			for _, name := range []string{
				filepath.Join("files", hash[:2], hash), filepath.Join("parts", hash), filepath.Join("parts", hash+".part"),
			} {
				dir := filepath.Join(base, fmt.Sprint(images))
				path := filepath.Join(dir, name)
				if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, b, 0o644)); err != nil {
					t.Fatal(err)
				}
				c := open(t, dir, 1<<20, s)
				f := get(t, c, ref)
				if got, err := os.ReadFile(f.Path); err != nil || string(got) != text {
					t.Errorf("%s with %d bytes: the cache gives %d others, %v", name, len(b), len(got), err)
				}
				f.Release()
				if err := c.Close(); err != nil {
					t.Fatal(err)
				}
				images++
			}
		}
	}
	t.Logf("%d images", images)
}
