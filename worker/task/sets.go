package task

import (
	"fmt"
	"os"
	"sync"

	"github.com/espalier-ml/espalier/model/data"
)

// idleSets is how many decoded data sets are kept that nobody uses.
const idleSets = 1

// setKey names a split data set.
type setKey struct {
	hash string
	seed uint64
}

// sets are decoded data sets, shared by all tasks of the process.
type sets struct {
	mu    sync.Mutex
	open  map[setKey]*openSet
	clock int
}

type openSet struct {
	once  sync.Once
	set   *data.Set
	err   error
	users int
	used  int
}

func newSets() *sets { return &sets{open: map[setKey]*openSet{}} }

// use returns the set, decoding it from the file at path if it is not open.
// release must be called once.
func (s *sets) use(key setKey, path string) (set *data.Set, release func(), err error) {
	s.mu.Lock()
	o := s.open[key]
	if o == nil {
		o = &openSet{}
		s.open[key] = o
	}
	o.users++
	s.clock++
	o.used = s.clock
	s.mu.Unlock()
	release = func() { s.release(key, o) }

	o.once.Do(func() { o.set, o.err = decodeSet(path, key.seed) })
	if o.err != nil {
		release()
		return nil, nil, fmt.Errorf("decode data set %s: %w", key.hash, o.err)
	}
	return o.set, release, nil
}

// release ends a use, forgets a set that could not be decoded, and those unused
// for longest beyond idleSets.
func (s *sets) release(key setKey, o *openSet) {
	s.mu.Lock()
	defer s.mu.Unlock()
	o.users--
	if o.err != nil && s.open[key] == o {
		delete(s.open, key)
	}
	for {
		idle, oldest := 0, setKey{}
		for k, o := range s.open {
			if o.users > 0 {
				continue
			}
			idle++
			if idle == 1 || o.used < s.open[oldest].used {
				oldest = k
			}
		}
		if idle <= idleSets {
			return
		}
		delete(s.open, oldest)
	}
}

func decodeSet(path string, seed uint64) (*data.Set, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return data.ReadCanonical(f, data.Options{Split: data.SplitOptions{Seed: seed}})
}
