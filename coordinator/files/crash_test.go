package files

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	mrand "math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"
)

// crashSeed repeats a run of the crash images: its log names the seed.
var crashSeed = flag.Uint64("crash.seed", 0, "seed of the crash images; 0 takes a new one")

// memoryDir is a folder in memory where there is one: images are many, and need no disk.
func memoryDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "espalier-crash-*")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// crashImages are folders as a crash, or a damaged disk, leaves them around the upload of a file.
type crashImages struct {
	t                           *testing.T
	dir                         string
	n                           int
	data                        []byte
	ref                         Ref
	whole, partial, none, other int
}

// try opens a folder in which the file, or what was received of it, has some content; nil is
// none. Then the upload goes on as a client does it: the file must be there in the end, and
// nothing else may ever pass for it.
func (c *crashImages) try(kind string, complete, received []byte) {
	t := c.t
	t.Helper()
	c.n++
	dir := filepath.Join(c.dir, fmt.Sprint(c.n))
	defer os.RemoveAll(dir)
	final := filepath.Join(dir, c.ref.Hash[:2], c.ref.Hash[2:4], c.ref.Hash)
	for path, b := range map[string][]byte{final: complete, filepath.Join(dir, partialDir, c.ref.Hash): received} {
		err := os.MkdirAll(filepath.Dir(path), 0o700)
		if err == nil && b != nil {
			err = os.WriteFile(path, b, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	s, err := Open(Config{Dir: dir, NoSync: true})
	if err != nil {
		t.Fatalf("%s: %v", kind, err)
	}
	f, err := s.OpenVerified(t.Context(), c.ref.Hash)
	switch {
	case err == nil:
		_ = f.Close() // only read
		c.whole++
	case !errors.Is(err, ErrNotFound):
		t.Errorf("%s: %v", kind, err)
	case complete != nil:
		c.other++
	case received != nil:
		c.partial++
	default:
		c.none++
	}
	if want := complete != nil && bytes.Equal(complete, c.data); (err == nil) != want {
		t.Errorf("%s: opened with %v", kind, err)
	}
	for tries := 0; !s.Holds(t.Context(), c.ref); tries++ {
		info, err := s.Stat(c.ref.Hash)
		if err != nil || tries == 3 {
			t.Fatalf("%s: after %d tries: %+v, %v", kind, tries, info, err)
		}
		from := min(info.Received, c.ref.SizeBytes)
		_, err = s.Append(t.Context(), c.ref, from, bytes.NewReader(c.data[from:]))
		if err != nil && !errors.Is(err, ErrHashMismatch) {
			t.Errorf("%s: go on from %d: %v", kind, from, err)
		}
	}
	if got := read(t, s, c.ref.Hash); !bytes.Equal(got, c.data) {
		t.Errorf("%s: other content is there", kind)
	}
}

// TestCrashImagesOfFiles interrupts an upload at each write and each step, and damages what is
// there.
func TestCrashImagesOfFiles(t *testing.T) {
	seed := *crashSeed
	if seed == 0 {
		seed = uint64(time.Now().UnixNano())
	}
	t.Logf("seed %d: repeat with -args -crash.seed %d", seed, seed)
	rng := mrand.New(mrand.NewPCG(seed, 2))
	most := 200
	if testing.Short() {
		most = 10
	}
	n := 0
	var counts crashImages
	for _, size := range []int{0, 1, 4095, 4096, 10_000} {
		data := content(size, size)
		c := &crashImages{t: t, dir: memoryDir(t), data: data, ref: refOf(data)}
		c.try("nothing written", nil, nil)
		c.try("the name made, nothing in it", nil, []byte{})
		c.try("all written, not named", nil, data)
		c.try("named", data, nil)
		c.try("named, and what was received is still there", data, data)
		for range most {
			k := rng.IntN(size + 1)
			c.try(fmt.Sprintf("%d of %d received", k, size), nil, data[:k])
			// The length is on disk, the content is not, from some sector on.
			lost := append(slices.Clone(data[:k/512*512]), make([]byte, size-k/512*512)...)
			c.try(fmt.Sprintf("received, lost from %d on", k/512*512), nil, lost)
			c.try("received more than there is", nil, append(slices.Clone(data), lost[:1+rng.IntN(size+1)-1]...))
			if size > 0 {
				// Not by a crash: the file is synced before it gets its name.
				c.try(fmt.Sprintf("named with %d of %d", k%size, size), data[:k%size:k%size], nil)
				bad := slices.Clone(data)
				bad[k%size] ^= 1 << rng.IntN(8)
				c.try("named, a bit flipped", bad, nil)
			}
		}
		counts.whole, counts.partial = counts.whole+c.whole, counts.partial+c.partial
		counts.none, counts.other = counts.none+c.none, counts.other+c.other
	}
	n = counts.whole + counts.partial + counts.none + counts.other
	t.Logf("%d images: %d whole, %d in part, %d without, %d damaged", n, counts.whole, counts.partial, counts.none, counts.other)
}
