package files

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/rs/zerolog"

	"github.com/espalier-ml/espalier/proto/trace"
)

// ErrNoMajority says that too few replicas answered to know where a file is.
var ErrNoMajority = errors.New("no majority of replicas answered")

// Peer is another replica, as files see it.
type Peer interface {
	// ID names it.
	ID() string
	// Hold asks it to hold files, fetching what it lacks from the replica whose address is
	// from, and returns those that it still lacks.
	Hold(ctx context.Context, refs []Ref, from string) (missing []string, err error)
	// Fetch opens its file from an offset on; ErrNotFound if it has none.
	Fetch(ctx context.Context, hash string, offset int64) (io.ReadCloser, error)
}

// ReplicatorConfig says who the others are.
type ReplicatorConfig struct {
	Store *Store
	// Self is the address from which others fetch this replica's files.
	Self string
	// Peers lists the other replicas that count for a majority, as of now.
	Peers func() []Peer
	// Timeout bounds one peer's answer to Hold. 0: 2 min, since it may have much to fetch.
	Timeout time.Duration
	// Unused is how long a file must not have been asked for before Sync removes it. 0: 10 min.
	Unused time.Duration
	Logger zerolog.Logger
}

// Replicator keeps files on a majority of replicas, and finds them on others.
type Replicator struct {
	cfg ReplicatorConfig

	ctx    context.Context // until Close
	cancel context.CancelFunc
	work   sync.WaitGroup

	mu sync.Mutex
	// closed: no more work is begun.
	closed bool
	// held says when a majority of the replicas in voters was last seen to hold a file: for a
	// while it is not asked about again.
	held   map[string]time.Time
	voters string
}

const (
	// maxHeld bounds the memory of what a majority holds.
	maxHeld = 1 << 16
	// heldFor is how long that counts: from an upload to the report that names it.
	heldFor = 2 * time.Minute
	// unusedFor is how long a file must not have been asked for before a drop removes it. It
	// is longer than heldFor and a report take together.
	unusedFor = 10 * time.Minute
)

// NewReplicator checks the configuration; its errors wrap ErrConfig.
func NewReplicator(cfg ReplicatorConfig) (*Replicator, error) {
	switch {
	case cfg.Store == nil:
		return nil, fmt.Errorf("%w: Store is missing", ErrConfig)
	case cfg.Peers == nil:
		return nil, fmt.Errorf("%w: Peers is missing", ErrConfig)
	case cfg.Timeout < 0:
		return nil, fmt.Errorf("%w: Timeout is %s, want 0 or more", ErrConfig, cfg.Timeout)
	}
	if cfg.Timeout == 0 {
		cfg.Timeout = 2 * time.Minute
	}
	if cfg.Unused == 0 {
		cfg.Unused = unusedFor
	}
	r := &Replicator{cfg: cfg, held: map[string]time.Time{}}
	r.ctx, r.cancel = context.WithCancel(context.Background())
	return r, nil
}

// Hold is what a replica does when it is asked to hold files: it fetches what it lacks
// from the peer, nil for any, and returns what it still lacks, with the first reason.
func (r *Replicator) Hold(ctx context.Context, refs []Ref, from Peer) (missing []string, reason error) {
	for _, ref := range refs {
		if r.cfg.Store.Holds(ctx, ref) {
			continue
		}
		var err error
		if from != nil {
			err = r.fetchFrom(ctx, from, ref)
		} else {
			err = r.Fetch(ctx, ref)
		}
		if err != nil {
			missing = append(missing, ref.Hash)
			reason = errors.Join(reason, err)
		}
	}
	return missing, reason
}

// Fetch gets a file that is not here from whichever peer has it. Errors: ErrNotFound
// when all say that they have none, or the last peer's.
func (r *Replicator) Fetch(ctx context.Context, ref Ref) error {
	if r.cfg.Store.Holds(ctx, ref) {
		return nil
	}
	last := fmt.Errorf("%w: %s is on no replica that answers", ErrNotFound, ref.Hash)
	for _, p := range r.cfg.Peers() {
		err := r.fetchFrom(ctx, p, ref)
		if err == nil {
			return nil
		}
		if !errors.Is(err, ErrNotFound) {
			last = err
		}
		if ctx.Err() != nil {
			break
		}
	}
	return last
}

// fetchFrom gets a file from one peer, going on where an earlier transfer ended.
func (r *Replicator) fetchFrom(ctx context.Context, p Peer, ref Ref) error {
	info, err := r.cfg.Store.Stat(ref.Hash)
	if err != nil {
		return err
	}
	if info.Received > ref.SizeBytes {
		info.Received = 0
	}
	body, err := p.Fetch(ctx, ref.Hash, info.Received)
	if err != nil {
		return fmt.Errorf("fetch %s from %s: %w", ref.Hash, p.ID(), err)
	}
	got, err := r.cfg.Store.Append(ctx, ref, info.Received, body)
	err = errors.Join(err, body.Close())
	if err == nil && got < ref.SizeBytes {
		err = io.ErrUnexpectedEOF
	}
	if err != nil {
		return fmt.Errorf("fetch %s from %s: %w", ref.Hash, p.ID(), err)
	}
	r.cfg.Logger.Debug().Fields(trace.From(ctx).Fields()).Str("file", ref.Hash).Str("replica", p.ID()).Int64("bytes", ref.SizeBytes).Msg("file fetched")
	return nil
}

// Open opens a file wherever it is: one that is not here is fetched first. Errors:
// ErrNotFound, ErrHash, or a peer's.
func (r *Replicator) Open(ctx context.Context, ref Ref) (*File, error) {
	f, err := r.cfg.Store.OpenVerified(ctx, ref.Hash)
	if !errors.Is(err, ErrNotFound) {
		return f, err
	}
	if err := r.Fetch(ctx, ref); err != nil {
		return nil, err
	}
	return r.cfg.Store.OpenVerified(ctx, ref.Hash)
}

// Majority sees to it that a majority of replicas, this one among them, holds the files,
// and returns those for which that is not so: they are nowhere, or too few could get
// them. ErrNoMajority when too few replicas answered at all.
func (r *Replicator) Majority(ctx context.Context, refs []Ref) (missing []string, err error) {
	for _, ref := range refs {
		if err := CheckHash(ref.Hash); err != nil {
			return nil, err
		}
	}
	peers := r.cfg.Peers()
	r.countVoters(peers)
	here := make([]Ref, 0, len(refs))
	for _, ref := range refs {
		if r.isHeld(ref.Hash) && r.cfg.Store.Holds(ctx, ref) {
			continue
		}
		if err := r.Fetch(ctx, ref); err != nil {
			missing = append(missing, ref.Hash)
			continue
		}
		here = append(here, ref)
	}
	if len(here) == 0 {
		return missing, ctx.Err()
	}
	lacking, err := r.spread(ctx, peers, here)
	if err != nil {
		return nil, err
	}
	return append(missing, lacking...), nil
}

// answer is what one peer said to Hold.
type answer struct {
	missing []string
	err     error
}

// spread asks all peers to hold files that are here, and waits until a majority has them
// or all have answered.
func (r *Replicator) spread(ctx context.Context, peers []Peer, refs []Ref) ([]string, error) {
	need := (len(peers)+1)/2 + 1 // of len(peers)+1 replicas
	holders := map[string]int{}
	for _, ref := range refs {
		holders[ref.Hash] = 1
	}
	// The slower peers go on when a majority has answered: they get the files too.
	answers := make(chan answer, len(peers))
	for _, p := range peers {
		if !r.spawn(func() { answers <- r.ask(trace.From(ctx), p, refs) }) {
			return nil, context.Canceled
		}
	}
	answered := 1
	for pending := len(peers); pending > 0 && !enough(holders, need); pending-- {
		select {
		case a := <-answers:
			if a.err == nil {
				answered++
				count(holders, a.missing)
			}
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	var lacking []string
	for _, ref := range refs {
		if holders[ref.Hash] >= need {
			r.setHeld(ref.Hash)
		} else {
			lacking = append(lacking, ref.Hash)
		}
	}
	if answered < need && len(lacking) > 0 {
		return nil, fmt.Errorf("%w: %d of %d", ErrNoMajority, answered, len(peers)+1)
	}
	return lacking, nil
}

// ask asks one peer; it lasts until the peer has answered or Close.
func (r *Replicator) ask(ids trace.IDs, p Peer, refs []Ref) answer {
	ctx, cancel := context.WithTimeout(trace.With(r.ctx, ids), r.cfg.Timeout)
	defer cancel()
	missing, err := p.Hold(ctx, refs, r.cfg.Self)
	if err != nil {
		r.cfg.Logger.Debug().Err(err).Str("replica", p.ID()).Msg("replica does not hold files")
	}
	return answer{missing, err}
}

// spawn runs f in a goroutine that Close waits for; false after Close.
func (r *Replicator) spawn(f func()) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return false
	}
	r.work.Go(f)
	return true
}

// Close ends what is under way and waits for it.
func (r *Replicator) Close() {
	r.mu.Lock()
	r.closed = true
	r.mu.Unlock()
	r.cancel()
	r.work.Wait()
}

func count(holders map[string]int, missing []string) {
	lacks := map[string]bool{}
	for _, h := range missing {
		lacks[h] = true
	}
	for h := range holders {
		if !lacks[h] {
			holders[h]++
		}
	}
}

func enough(holders map[string]int, need int) bool {
	for _, n := range holders {
		if n < need {
			return false
		}
	}
	return true
}

func (r *Replicator) isHeld(hash string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	at, ok := r.held[hash]
	return ok && time.Since(at) < heldFor
}

func (r *Replicator) setHeld(hash string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.held) >= maxHeld {
		clear(r.held)
	}
	r.held[hash] = time.Now()
}

// countVoters forgets what a majority holds when it is a majority of others.
func (r *Replicator) countVoters(peers []Peer) {
	var ids []string
	for _, p := range peers {
		ids = append(ids, p.ID())
	}
	slices.Sort(ids)
	now := strings.Join(ids, "\n")
	r.mu.Lock()
	defer r.mu.Unlock()
	if now != r.voters {
		clear(r.held)
		r.voters = now
	}
}

// forget makes Majority ask again about one file.
func (r *Replicator) forget(hash string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.held, hash)
}

// Synced is what a Sync found and did.
type Synced struct {
	// Fetched were not here and are now.
	Fetched []string
	// Missing could not be fetched now: some replicas did not answer.
	Missing []string
	// Lost are on no replica: all voters answered. What made them has to make them again.
	Lost []string
	// Removed were dropped by garbage collection and are gone from here.
	Removed []string
}

// Sync brings this replica's files in line with the record: every wanted file is
// fetched, every dropped one removed. It goes on after failures and ends early with
// ctx's error.
func (r *Replicator) Sync(ctx context.Context, wanted []Ref, dropped []string) (Synced, error) {
	var out Synced
	for _, ref := range wanted {
		if err := ctx.Err(); err != nil {
			return out, err
		}
		if info, err := r.cfg.Store.Stat(ref.Hash); err == nil && info.Present && info.SizeBytes == ref.SizeBytes {
			continue // without Holds: nobody is going to count on it
		}
		if err := r.Fetch(ctx, ref); err != nil {
			r.cfg.Logger.Warn().Err(err).Str("file", ref.Hash).Msg("file is missing here")
			if errors.Is(err, ErrNotFound) {
				out.Lost = append(out.Lost, ref.Hash)
			} else {
				out.Missing = append(out.Missing, ref.Hash)
			}
			continue
		}
		out.Fetched = append(out.Fetched, ref.Hash)
	}
	for _, h := range dropped {
		if !r.cfg.Store.Has(h) {
			continue
		}
		gone, err := r.cfg.Store.RemoveUnused(ctx, h, r.cfg.Unused)
		if err != nil {
			return out, err
		}
		if gone {
			r.forget(h)
			out.Removed = append(out.Removed, h)
		}
	}
	return out, nil
}
