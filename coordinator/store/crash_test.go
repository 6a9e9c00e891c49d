package store

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"maps"
	mrand "math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/hashicorp/raft"
	bolt "go.etcd.io/bbolt"
)

// crashSeed repeats a run of the crash images: its log names the seed.
var crashSeed = flag.Uint64("crash.seed", 0, "seed of the crash images; 0 takes a new one")

func crashRand(t *testing.T) *mrand.Rand {
	seed := *crashSeed
	if seed == 0 {
		seed = uint64(time.Now().UnixNano())
	}
	t.Logf("seed %d: repeat with -args -crash.seed %d", seed, seed)
	return mrand.New(mrand.NewPCG(seed, 1))
}

const (
	page   = 4096
	sector = 512
)

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

// image is a file: its content, zeros up to size.
type image struct {
	data []byte
	size int64
}

func readImage(t *testing.T, path string) image {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	used := (len(bytes.TrimRight(b, "\x00")) + page - 1) / page * page
	used = min(used, len(b))
	return image{b[:used:used], int64(len(b))}
}

func (m image) clone() image { return image{slices.Clone(m.data), m.size} }

// put copies part of another image into this one.
func (m *image) put(from image, at, n int) {
	if need := at + n; need > len(m.data) {
		m.data = append(m.data, make([]byte, need-len(m.data))...)
		m.size = max(m.size, int64(need))
	}
	part := m.data[at : at+n]
	clear(part)
	if at < len(from.data) {
		copy(part, from.data[at:])
	}
}

func (m image) write(t *testing.T, path string) {
	t.Helper()
	err := os.WriteFile(path, m.data, 0o600)
	if err == nil {
		err = os.Truncate(path, m.size)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// diff lists the numbers of the pages that differ, the meta page last and apart.
func diff(before, after image) (data []int, meta int) {
	meta = -1
	for p := 0; p*page < max(len(before.data), len(after.data)); p++ {
		old, now := image{}, image{}
		old.put(before, p*page, page)
		now.put(after, p*page, page)
		switch {
		case bytes.Equal(old.data[p*page:], now.data[p*page:]):
		case p < 2:
			meta = p
		default:
			data = append(data, p)
		}
	}
	return data, meta
}

// logDigest is all that a log file holds.
func logDigest(t *testing.T, s *logStore) string {
	t.Helper()
	sum := sha256.New()
	for i := s.first; i > 0 && i <= s.last; i++ {
		var l raft.Log
		if err := s.GetLog(i, &l); err != nil {
			t.Fatal(err)
		}
		sum.Write(encodeLog(&l))
	}
	err := s.db.View(func(tx *bolt.Tx) error {
		return tx.Bucket(bucketStable).ForEach(func(k, _ []byte) error {
			if bytes.Equal(k, keyBounds) {
				return nil
			}
			v, err := s.Get(k)
			fmt.Fprintf(sum, "%q %q\n", k, v)
			return err
		})
	})
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("%d-%d %x", s.first, s.last, sum.Sum(nil)[:8])
}

// step makes one random transaction of those that Raft makes.
func step(t *testing.T, rng *mrand.Rand, s *logStore) (kind string) {
	t.Helper()
	var err error
	entries := func(n, size int) (logs []*raft.Log) {
		for i := range n {
			data := make([]byte, size)
			for j := range data {
				data[j] = byte(rng.Uint32())
			}
			logs = append(logs, &raft.Log{Index: s.last + 1 + uint64(i), Term: 1 + rng.Uint64N(9), Data: data})
		}
		return logs
	}
	switch n := rng.IntN(20); {
	case n < 8:
		kind, err = "append", s.StoreLogs(entries(1+rng.IntN(4), rng.IntN(300)))
	case n < 10:
		kind, err = "append of many pages", s.StoreLogs(entries(1+rng.IntN(2), page+rng.IntN(4*page)))
	case n < 12 && s.last > s.first:
		at := s.first + 1 + rng.Uint64N(s.last-s.first)
		kind, err = "suffix dropped", s.DeleteRange(at, s.last)
	case n == 12 && s.last > s.first:
		kind, err = "all dropped", s.DeleteRange(1, s.last)
	case n < 15 && s.last > s.first:
		at := s.first + rng.Uint64N(s.last-s.first)
		kind, err = "prefix dropped", s.DeleteRange(s.first, at)
	default:
		key := [][]byte{[]byte("CurrentTerm"), []byte("LastVoteTerm"), []byte("LastVoteCand")}[rng.IntN(3)]
		kind, err = "stable value", s.put(key, binary.BigEndian.AppendUint64(nil, rng.Uint64N(50)))
	}
	if err != nil {
		t.Fatal(err)
	}
	return kind
}

// outcomes counts what opening the images of one kind gave.
type outcomes struct{ before, after, refused int }

// crashes opens images of one transaction.
type crashes struct {
	t             *testing.T
	path          string
	before, after string // digests
	counts        map[string]*outcomes
	opened        int
}

// try opens an image. possible: a crash can leave it, so that it must not be refused. must
// is the digest that it has to have; "" for either.
func (c *crashes) try(kind string, m image, possible bool, must string) {
	t := c.t
	t.Helper()
	m.write(t, c.path)
	n := c.counts[kind]
	if n == nil {
		n = &outcomes{}
		c.counts[kind] = n
	}
	s, err := openLogStore(c.path, true, 0)
	if err != nil {
		n.refused++
		if possible || !errors.Is(err, ErrCorrupt) {
			t.Errorf("%s: %v", kind, err)
		}
		return
	}
	got := logDigest(t, s)
	switch {
	case must != "" && got != must, got != c.before && got != c.after:
		t.Errorf("%s: it holds %s, want %s or %s", kind, got, c.before, c.after)
	case got == c.after:
		n.after++
	default:
		n.before++
	}
	if c.opened++; c.opened%64 == 0 {
		c.goOn(kind, s)
	}
	if err := s.close(); err != nil {
		t.Error(err)
	}
	if c.opened%64 == 0 {
		checkBolt(t, c.path)
	}
}

// goOn appends to an opened image: what was free before the crash must be free after it.
func (c *crashes) goOn(kind string, s *logStore) {
	c.t.Helper()
	for range 3 {
		if err := s.StoreLog(&raft.Log{Index: s.last + 1, Term: 99, Data: make([]byte, 900)}); err != nil {
			c.t.Errorf("%s: append after it: %v", kind, err)
		}
	}
	want := logDigest(c.t, s)
	if err := s.close(); err != nil {
		c.t.Error(err)
	}
	again, err := openLogStore(c.path, true, 0)
	if err != nil {
		c.t.Errorf("%s: open after it: %v", kind, err)
		return
	}
	if got := logDigest(c.t, again); got != want {
		c.t.Errorf("%s: after it %s, want %s", kind, got, want)
	}
	*s = logStore{db: again.db, path: s.path}
}

// subsets gives all subsets of n things when they are few, else some of them.
func subsets(rng *mrand.Rand, n, most int) (out [][]bool) {
	if n < 30 && 1<<n <= most {
		for bits := range 1 << n {
			set := make([]bool, n)
			for i := range set {
				set[i] = bits>>i&1 == 1
			}
			out = append(out, set)
		}
		return out
	}
	for range most {
		set := make([]bool, n)
		p := rng.Float64()
		for i := range set {
			set[i] = rng.Float64() < p
		}
		out = append(out, set)
	}
	return out
}

// images makes all images of one transaction: bbolt writes the data pages, syncs, writes one
// meta page, syncs.
func (c *crashes) images(rng *mrand.Rand, before, after image, most int) {
	data, meta := diff(before, after)
	grown := before.clone()
	grown.size = max(before.size, after.size)
	c.try("nothing written", before, true, c.before)
	c.try("the file grown", grown, true, c.before)

	some := func(from image, set []bool) image {
		m := from.clone()
		for i, p := range data {
			if set[i] {
				m.put(after, p*page, page)
			}
		}
		return m
	}
	for _, set := range subsets(rng, len(data), most) {
		c.try("some data pages, the old meta page", some(grown, set), true, c.before)
	}
	for _, p := range data {
		for at := sector; at < page; at += sector {
			if rng.IntN(len(data)) >= most/16+1 {
				continue
			}
			m := some(grown, make([]bool, len(data)))
			m.put(after, p*page, at)
			c.try("a torn data page, the old meta page", m, true, c.before)
			m = some(grown, slices.Repeat([]bool{true}, len(data)))
			m.put(before, p*page, at)
			c.try("a torn data page, the old meta page", m, true, c.before)
		}
	}

	all := some(grown, slices.Repeat([]bool{true}, len(data)))
	for at := 1; at <= page; at++ {
		if at > boltHeader+boltMeta+1 && at%sector > 1 || at%sector > 1 && rng.IntN(256) > most {
			continue
		}
		m := all.clone()
		m.put(after, meta*page, at)
		want := "" // of a torn one either, as its checksum tells
		if at >= boltHeader+boltMeta {
			want = c.after
		}
		c.try("all data pages, a torn meta page", m, true, want)
		m = all.clone()
		m.put(after, meta*page, page)
		m.put(before, meta*page, at)
		c.try("all data pages, a torn meta page", m, true, "")
	}
	c.lies(rng, before, after, some(all, make([]bool, len(data))), data, meta, most)
}

// lies are images that no crash leaves unless the disk lied when it was told to sync.
func (c *crashes) lies(rng *mrand.Rand, before, after, all image, data []int, meta, most int) {
	whole := all.clone()
	whole.put(after, meta*page, page)
	for _, set := range subsets(rng, len(data), most) {
		m := whole.clone()
		for i, p := range data {
			if !set[i] {
				m.put(before, p*page, page)
			}
		}
		c.try("lost data pages, the new meta page", m, false, "")
	}
	for _, p := range data {
		m := whole.clone()
		m.put(image{}, p*page, page)
		c.try("a zeroed data page, the new meta page", m, false, "")
		for at := sector; at < page; at += 3 * sector {
			m := whole.clone()
			m.put(before, p*page, at)
			c.try("a torn data page, the new meta page", m, false, "")
		}
	}
	m := whole.clone()
	m.put(image{}, 0, 2*page)
	c.try("both meta pages gone", m, false, "")
	for i := range 4 {
		m := whole.clone()
		m.size = rng.Int64N([]int64{m.size, int64(len(m.data))}[i%2] + 1)
		m.data = m.data[:min(int64(len(m.data)), m.size)]
		c.try("the file cut", m, false, "")
	}
}

// TestCrashImages makes images of the log file as crashes leave it in the middle of each of
// a series of transactions, and opens them. One that a crash can leave gives the log before
// or after the transaction; one that only a lying disk leaves gives those or ErrCorrupt.
func TestCrashImages(t *testing.T) {
	rng := crashRand(t)
	steps, most := 120, 256
	if testing.Short() {
		steps, most = 24, 32
	}
	dir := memoryDir(t)
	path := filepath.Join(dir, "raft.db")
	s, err := openLogStore(path, false, 0)
	if err != nil {
		t.Fatal(err)
	}
	counts := map[string]*outcomes{}
	kinds := map[string]int{}
	before, digest := readImage(t, path), logDigest(t, s)
	for range steps {
		kinds[step(t, rng, s)]++
		c := &crashes{t: t, path: filepath.Join(dir, "image.db"), before: digest, after: logDigest(t, s), counts: counts}
		after := readImage(t, path)
		c.images(rng, before, after, most)
		before, digest = after, c.after
		if t.Failed() {
			break
		}
	}
	if err := s.close(); err != nil {
		t.Fatal(err)
	}
	t.Logf("transactions: %v", kinds)
	logOutcomes(t, counts)
}

func logOutcomes(t *testing.T, counts map[string]*outcomes) {
	t.Helper()
	sum := 0
	for _, kind := range slices.Sorted(maps.Keys(counts)) {
		n := counts[kind]
		sum += n.before + n.after + n.refused
		t.Logf("%6d images: %6d before, %6d after, %6d refused: %s", n.before+n.after+n.refused, n.before, n.after, n.refused, kind)
	}
	t.Logf("%6d images in all", sum)
}
