package files

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/iotest"
	"time"

	"go.uber.org/goleak"
	"pgregory.net/rapid"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func open(t testing.TB) *Store {
	t.Helper()
	s, err := Open(Config{Dir: t.TempDir(), NoSync: true, MaxBytes: 1 << 20})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func refOf(data []byte) Ref {
	sum := sha256.Sum256(data)
	return Ref{Hash: hex.EncodeToString(sum[:]), SizeBytes: int64(len(data))}
}

// content is n bytes that differ by seed.
func content(seed, n int) []byte {
	out := make([]byte, n)
	for i := range out {
		out[i] = byte(seed + i*i>>3)
	}
	return out
}

func put(t testing.TB, s *Store, data []byte) Ref {
	t.Helper()
	ref := refOf(data)
	if err := s.Put(context.Background(), ref, bytes.NewReader(data)); err != nil {
		t.Fatal(err)
	}
	return ref
}

func read(t testing.TB, s *Store, hash string) []byte {
	t.Helper()
	f, err := s.Open(hash)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	b, err := io.ReadAll(f)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestPutAndRead(t *testing.T) {
	s := open(t)
	for _, n := range []int{0, 1, 1000, 100_000} {
		data := content(n, n)
		ref := put(t, s, data)
		if got := read(t, s, ref.Hash); !bytes.Equal(got, data) {
			t.Errorf("%d bytes come back as %d others", n, len(got))
		}
		info, err := s.Stat(ref.Hash)
		if err != nil || !info.Present || info.SizeBytes != int64(n) {
			t.Errorf("stat %+v, %v", info, err)
		}
		// Again, without reading.
		if err := s.Put(t.Context(), ref, iotest.ErrReader(errors.New("read"))); err != nil {
			t.Errorf("put of what is here: %v", err)
		}
	}
	f, err := s.Open(refOf(content(1000, 1000)).Hash)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	b := make([]byte, 10)
	if _, err := f.ReadAt(b, 500); err != nil || !bytes.Equal(b, content(1000, 1000)[500:510]) || f.Size() != 1000 {
		t.Errorf("range: %x, %v, size %d", b, err, f.Size())
	}
}

func TestErrors(t *testing.T) {
	s := open(t)
	data := content(1, 100)
	ref := refOf(data)
	broken := errors.New("connection lost")
	cases := []struct {
		name     string
		ref      Ref
		offset   int64
		r        io.Reader
		want     error
		received int64 // that stay
	}{
		{"hash", Ref{Hash: "../../etc/passwd"}, 0, nil, ErrHash, 0},
		{"upper case", Ref{Hash: strings.ToUpper(ref.Hash)}, 0, nil, ErrHash, 0},
		{"too large", Ref{Hash: ref.Hash, SizeBytes: 1<<20 + 1}, 0, nil, ErrTooLarge, 0},
		{"negative size", Ref{Hash: ref.Hash, SizeBytes: -1}, 0, nil, ErrTooLarge, 0},
		{"offset", ref, 1, bytes.NewReader(data), ErrOffset, 0},
		{"negative offset", ref, -1, bytes.NewReader(data), ErrOffset, 0},
		{"longer than announced", Ref{ref.Hash, 99}, 0, bytes.NewReader(data), ErrTooLarge, 0},
		{"other content", ref, 0, bytes.NewReader(content(2, 100)), ErrHashMismatch, 0},
		{"broken off", ref, 0, io.MultiReader(bytes.NewReader(data[:40]), iotest.ErrReader(broken)), broken, 40},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			_, err := s.Append(t.Context(), c.ref, c.offset, c.r)
			if !errors.Is(err, c.want) {
				t.Fatalf("%v, want %v", err, c.want)
			}
			if info, err := s.Stat(ref.Hash); err != nil || info.Present || info.Received != c.received {
				t.Errorf("afterwards %+v, %v: want %d received", info, err, c.received)
			}
		})
	}
	if n, err := s.Append(t.Context(), ref, 40, bytes.NewReader(data[40:])); err != nil || n != 100 {
		t.Fatalf("resume: %d, %v", n, err)
	}
	if _, err := s.Open(refOf(content(9, 9)).Hash); !errors.Is(err, ErrNotFound) {
		t.Errorf("open of what is not here: %v", err)
	}
	if _, err := s.Open("x"); !errors.Is(err, ErrHash) {
		t.Errorf("open of a wrong name: %v", err)
	}
}

// TestUploads compares random uploads in pieces with the plain truth.
func TestUploads(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		s := open(t)
		data := content(rapid.IntRange(0, 9).Draw(rt, "seed"), rapid.IntRange(1, 300).Draw(rt, "size"))
		ref := refOf(data)
		at := 0
		for step := 0; at < len(data); step++ {
			from := rapid.IntRange(0, at+2).Draw(rt, "from")
			to := rapid.IntRange(min(from, len(data)), len(data)).Draw(rt, "to")
			if from > at {
				if _, err := s.Append(t.Context(), ref, int64(from), bytes.NewReader(nil)); !errors.Is(err, ErrOffset) {
					rt.Fatalf("offset %d at %d: %v", from, at, err)
				}
				continue
			}
			n, err := s.Append(t.Context(), ref, int64(from), bytes.NewReader(data[from:to]))
			if err != nil || n != int64(to) {
				rt.Fatalf("append %d to %d: %d, %v", from, to, n, err)
			}
			at = to
		}
		if got := read(t, s, ref.Hash); !bytes.Equal(got, data) {
			rt.Fatalf("%x, want %x", got, data)
		}
	})
}

func TestListRemoveUsage(t *testing.T) {
	s := open(t)
	var want []string
	var total int64
	for i := range 50 {
		ref := put(t, s, content(i, 10+i))
		want = append(want, ref.Hash)
		total += ref.SizeBytes
	}
	slices.Sort(want)
	var got []string
	for after := ""; ; {
		page, err := s.List(after, 7)
		if err != nil {
			t.Fatal(err)
		}
		if len(page) == 0 {
			break
		}
		for _, i := range page {
			got = append(got, i.Hash)
		}
		after = got[len(got)-1]
	}
	if !slices.Equal(got, want) {
		t.Fatalf("list has %d files, want %d in order", len(got), len(want))
	}
	u, err := s.Usage()
	if err != nil || u.Files != 50 || u.Bytes != total || u.FreeBytes == 0 {
		t.Errorf("usage %+v, %v: want 50 files, %d bytes", u, err, total)
	}
	held, err := s.Open(want[0])
	if err != nil {
		t.Fatal(err)
	}
	defer held.Close()
	for range 2 { // twice is no error
		if err := s.Remove(t.Context(), want[0]); err != nil {
			t.Fatal(err)
		}
	}
	if s.Has(want[0]) {
		t.Error("a removed file is still here")
	}
	if b, err := io.ReadAll(held); err != nil || int64(len(b)) != held.Size() {
		t.Errorf("a removed file that was open: %d bytes, %v", len(b), err)
	}
}

func TestAdd(t *testing.T) {
	s := open(t)
	data := content(3, 1234)
	ref, err := s.Add(t.Context(), bytes.NewReader(data))
	if err != nil || ref != refOf(data) {
		t.Fatalf("%+v, %v", ref, err)
	}
	if got := read(t, s, ref.Hash); !bytes.Equal(got, data) {
		t.Error("other content comes back")
	}
	if _, err := s.Add(t.Context(), bytes.NewReader(make([]byte, 1<<20+1))); !errors.Is(err, ErrTooLarge) {
		t.Errorf("too large: %v", err)
	}
	left, err := os.ReadDir(filepath.Join(s.cfg.Dir, partialDir))
	if err != nil || len(left) != 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

// TestConcurrentUploads: several senders of the same file, all in order or not.
func TestConcurrentUploads(t *testing.T) {
	s := open(t)
	data := content(5, 50_000)
	ref := refOf(data)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			if err := s.Put(t.Context(), ref, iotest.HalfReader(bytes.NewReader(data))); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if got := read(t, s, ref.Hash); !bytes.Equal(got, data) {
		t.Error("other content comes back")
	}
}

func TestWaitingUploadEndsWithContext(t *testing.T) {
	s := open(t)
	data := content(1, 10)
	unlock, err := s.lock(t.Context(), refOf(data).Hash)
	if err != nil {
		t.Fatal(err)
	}
	defer unlock()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.Put(ctx, refOf(data), bytes.NewReader(data)); !errors.Is(err, context.Canceled) {
		t.Fatalf("%v, want canceled", err)
	}
}

// TestScrub: one bit in one file.
func TestScrub(t *testing.T) {
	s := open(t)
	var refs []Ref
	for i := range 5 {
		refs = append(refs, put(t, s, content(i, 1000)))
	}
	path, err := s.Path(refs[2].Hash)
	if err != nil {
		t.Fatal(err)
	}
	b := read(t, s, refs[2].Hash)
	b[500] ^= 1
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := s.Scrub(t.Context(), 0)
	if err != nil || out.Files != 5 || out.Bytes != 5000 || !slices.Equal(out.Damaged, []string{refs[2].Hash}) {
		t.Fatalf("%+v, %v: want one damaged file of five", out, err)
	}
	if s.Has(refs[2].Hash) {
		t.Error("the damaged file is still here")
	}
	if u, err := s.Usage(); err != nil || u.DamagedBytes != 1000 || u.Files != 4 {
		t.Errorf("usage %+v, %v", u, err)
	}
	// It can come back.
	put(t, s, content(2, 1000))
	if err := s.Verify(t.Context(), refs[2].Hash); err != nil {
		t.Error(err)
	}
	if err := s.Verify(t.Context(), refOf(content(8, 8)).Hash); !errors.Is(err, ErrNotFound) {
		t.Errorf("verify of what is not here: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.Scrub(ctx, 1); !errors.Is(err, context.Canceled) {
		t.Errorf("scrub: %v, want canceled", err)
	}
	if left, err := s.List("", 0); err != nil || len(left) != 5 {
		t.Errorf("a scrub that was ended took files away: %d left, %v", len(left), err)
	}
}

func TestSweepPartial(t *testing.T) {
	dir := t.TempDir()
	s, err := Open(Config{Dir: dir, NoSync: true, PartialAge: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	data := content(1, 100)
	ref := refOf(data)
	if _, err := s.Append(t.Context(), ref, 0, bytes.NewReader(data[:10])); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		age  time.Duration
		want int64
	}{{59 * time.Minute, 10}, {61 * time.Minute, 0}} {
		if err := s.SweepPartial(time.Now().Add(c.age)); err != nil {
			t.Fatal(err)
		}
		if info, err := s.Stat(ref.Hash); err != nil || info.Received != c.want {
			t.Errorf("after %s: %+v, %v, want %d bytes", c.age, info, err, c.want)
		}
	}
}

func TestReopen(t *testing.T) {
	cfg := Config{Dir: t.TempDir()} // with fsync
	s, err := Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	data := content(4, 5000)
	ref := refOf(data)
	if _, err := s.Append(t.Context(), ref, 0, bytes.NewReader(data[:3000])); err != nil {
		t.Fatal(err)
	}
	if s, err = Open(cfg); err != nil {
		t.Fatal(err)
	}
	info, err := s.Stat(ref.Hash)
	if err != nil || info.Received != 3000 {
		t.Fatalf("%+v, %v: want 3000 bytes received", info, err)
	}
	if _, err := s.Append(t.Context(), ref, info.Received, bytes.NewReader(data[3000:])); err != nil {
		t.Fatal(err)
	}
	if got := read(t, s, ref.Hash); !bytes.Equal(got, data) {
		t.Error("other content comes back")
	}
}

func TestDrop(t *testing.T) {
	c := func(name string, size int64, trial int32, distance float64, pinned bool) Checkpoint {
		return Checkpoint{Hash: name, SizeBytes: size, Trial: trial, Distance: distance, Pinned: pinned}
	}
	cases := []struct {
		name  string
		in    []Checkpoint
		limit int64
		want  []string
	}{
		{"nothing", nil, 0, nil},
		{"within the limit", []Checkpoint{c("a", 10, 1, 1, false)}, 10, nil},
		{"farthest first", []Checkpoint{c("a", 10, 1, 1, false), c("b", 10, 2, 3, false), c("c", 10, 3, 2, false)}, 10, []string{"b", "c"}},
		{"pinned ones stay, and do not count", []Checkpoint{c("a", 99, 1, 9, true), c("b", 10, 2, 1, false)}, 10, nil},
		{"pinned ones stay over the limit", []Checkpoint{c("a", 99, 1, 9, true), c("b", 10, 2, 1, false)}, 0, []string{"b"}},
		{"equally far: the older trial goes", []Checkpoint{c("b", 10, 2, 1, false), c("a", 10, 1, 1, false)}, 10, []string{"a"}},
		{"shared and pinned once", []Checkpoint{c("a", 10, 1, 5, false), c("a", 10, 2, 5, true)}, 0, nil},
		{"shared counts once, at its least distance", []Checkpoint{c("a", 10, 1, 5, false), c("a", 10, 2, 1, false), c("b", 10, 3, 2, false)}, 10, []string{"b"}},
		{"not a number is farthest", []Checkpoint{c("a", 10, 1, nan(), false), c("b", 10, 2, 9, false)}, 10, []string{"a"}},
	}
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			if got := Drop(tc.in, tc.limit); !slices.Equal(got, tc.want) {
				t.Errorf("%v, want %v", got, tc.want)
			}
			rev := slices.Clone(tc.in)
			slices.Reverse(rev)
			if got := Drop(rev, tc.limit); !slices.Equal(got, tc.want) {
				t.Errorf("in another order: %v, want %v", got, tc.want)
			}
		})
	}
}

func nan() float64 { zero := 0.0; return zero / zero }

func TestConfig(t *testing.T) {
	for _, c := range []Config{{}, {Dir: "x", MaxBytes: -1}, {Dir: "x", PartialAge: -1}} {
		if _, err := Open(c); !errors.Is(err, ErrConfig) {
			t.Errorf("%+v: %v, want ErrConfig", c, err)
		}
	}
}

func BenchmarkPut(b *testing.B) {
	s, err := Open(Config{Dir: b.TempDir()})
	if err != nil {
		b.Fatal(err)
	}
	data := content(0, 1<<20)
	b.SetBytes(int64(len(data)))
	for i := 0; b.Loop(); i++ {
		copy(data, fmt.Sprint(i))
		put(b, s, data)
	}
}
