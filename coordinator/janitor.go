package coordinator

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/espalier-ml/espalier/coordinator/clock"
	"github.com/espalier-ml/espalier/coordinator/files"
	"github.com/espalier-ml/espalier/coordinator/leader"
	"github.com/espalier-ml/espalier/coordinator/store"
	v1 "github.com/espalier-ml/espalier/proto/espalier/v1"
)

const (
	// sweepInterval is the time between two looks for files that were dropped, unless records of files change before.
	sweepInterval = time.Minute
	// sweepPause is the least time between two looks.
	sweepPause = 5 * time.Second
	// sweepPage is how many records are read at once.
	sweepPage = 500
	// firstScrub is how long after the start the first scrub begins: a start has other things to do.
	firstScrub = time.Minute
)

// janitor brings this replica's disk in line with the records: what garbage collection dropped goes, what is missing or damaged
// is fetched from other replicas, and what no replica has is recorded as lost by the leader.
type janitor struct {
	s *Server
	// due asks for a look now.
	due chan struct{}
	// suspects were on no replica in the last look: a file is lost when two looks in a row say so.
	suspects map[string]bool
	stats    fileStats
}

// startJanitor starts the looks and the scrubs.
func (s *Server) startJanitor(context.Context) (func(context.Context) error, error) {
	ctx, cancel := context.WithCancel(context.Background())
	changes, unsubscribe := s.store.Subscribe()
	s.janitor = &janitor{s: s, due: make(chan struct{}, 1), suspects: map[string]bool{}}
	var work sync.WaitGroup
	work.Go(func() { s.janitor.run(ctx, changes) })
	work.Go(func() { s.janitor.scrub(ctx) })
	return func(context.Context) error {
		cancel()
		unsubscribe()
		work.Wait()
		return nil
	}, nil
}

// ask asks for a look now; one that is asked for already is enough.
func (j *janitor) ask() {
	select {
	case j.due <- struct{}{}:
	default:
	}
}

func (j *janitor) run(ctx context.Context, changes <-chan store.Change) {
	tick := time.NewTicker(j.s.cfg.sweepInterval)
	defer tick.Stop()
	for due := true; ; {
		if due {
			again, err := j.sweep(ctx)
			if err != nil && ctx.Err() == nil {
				j.s.log.Warn().Err(err).Msg("files not in line with the records, trying again")
			}
			select {
			case <-ctx.Done():
				return
			case <-time.After(j.s.cfg.sweepPause):
			}
			if again {
				continue
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			due = true
		case <-j.due:
			due = true
		case c, open := <-changes:
			if !open {
				return
			}
			due = c.Cluster || c.All
		}
	}
}

// scrub reads all files again and again, and compares them with their hashes.
func (j *janitor) scrub(ctx context.Context) {
	for wait := min(firstScrub, j.s.cfg.ScrubEvery); ; wait = j.s.cfg.ScrubEvery {
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait):
		}
		found, err := j.s.files.Scrub(ctx, j.s.cfg.ScrubRate)
		j.stats.scrubbed(found)
		switch {
		case ctx.Err() != nil:
			return
		case err != nil:
			j.s.log.Warn().Err(err).Int("files", found.Files).Msg("scrub ended early")
		default:
			j.s.log.Info().Int("files", found.Files).Int64("bytes", found.Bytes).Int("damaged", len(found.Damaged)).Msg("files scrubbed")
		}
		if len(found.Damaged) > 0 {
			j.ask()
		}
	}
}

// looked is what a look at all records found.
type looked struct {
	missing int
	lost    []string
	// back are recorded as lost and are here.
	back []files.Ref
}

// sweep removes the files that are recorded as dropped and still lie here, and fetches those that do not. again: a file may be
// lost, so that another look is due soon.
func (j *janitor) sweep(ctx context.Context) (again bool, err error) {
	var found looked
	for after, more := "", true; more && ctx.Err() == nil; {
		var failed error
		after, more, failed = j.page(ctx, after, &found)
		err = errors.Join(err, failed)
	}
	if err != nil || ctx.Err() != nil {
		return false, errors.Join(err, ctx.Err())
	}
	j.stats.looked(found)
	var lost []string
	suspects := map[string]bool{}
	for _, h := range found.lost {
		suspects[h] = true
		if j.suspects[h] {
			lost = append(lost, h)
		} else {
			again = true
		}
	}
	j.suspects = suspects
	if !j.s.store.IsLeader() {
		return again, nil
	}
	return again, errors.Join(j.lose(ctx, lost), j.restore(ctx, found.back))
}

// page looks at the records after a hash.
func (j *janitor) page(ctx context.Context, after string, found *looked) (last string, more bool, err error) {
	var wanted, gone []files.Ref
	var dropped []string
	n := 0
	err = j.s.store.View(func(v *store.View) error {
		records := v.Files(after, sweepPage)
		n = len(records)
		for _, r := range records {
			after = r.GetFile().GetHash()
			ref := files.Ref{Hash: after, SizeBytes: r.GetFile().GetSizeBytes()}
			switch {
			case r.GetDroppedMs() > 0:
				dropped = append(dropped, after)
			case r.GetLostMs() > 0:
				gone = append(gone, ref)
			default:
				wanted = append(wanted, ref)
			}
		}
		return nil
	})
	if err != nil {
		return after, false, err
	}
	got, err := j.s.replica.Sync(ctx, wanted, dropped)
	j.stats.fetched(len(got.Fetched))
	found.missing += len(got.Missing) + len(got.Lost)
	found.lost = append(found.lost, got.Lost...)
	for _, ref := range gone {
		if j.s.files.Has(ref.Hash) {
			found.back = append(found.back, ref)
		}
	}
	return after, n == sweepPage, err
}

// lose records that no replica has the files; those that are worth it are made again.
func (j *janitor) lose(ctx context.Context, hashes []string) error {
	if len(hashes) == 0 {
		return nil
	}
	var losses []*v1.LoseFiles
	err := j.s.store.View(func(v *store.View) error {
		losses = leader.Lost(v, hashes)
		return nil
	})
	for _, l := range losses {
		if err != nil {
			break
		}
		l.Reason = "on no replica"
		if err = j.apply(ctx, &v1.Command{Op: &v1.Command_LoseFiles{LoseFiles: l}}); err == nil {
			j.s.log.Error().Strs("files", l.GetHashes()).Str("task", l.GetTask()).Bool("again", l.GetTask() != "").
				Msg("files are on no replica: lost")
		}
	}
	return err
}

// restore records that files which were lost are on a majority of replicas after all.
func (j *janitor) restore(ctx context.Context, refs []files.Ref) error {
	if len(refs) == 0 {
		return nil
	}
	missing, err := j.s.replica.Majority(ctx, refs)
	if err != nil {
		return fmt.Errorf("spread files that came back: %w", err)
	}
	lacking := map[string]bool{}
	for _, h := range missing {
		lacking[h] = true
	}
	var found []*v1.FileRef
	err = j.s.store.View(func(v *store.View) error {
		for _, ref := range refs {
			if r := v.File(ref.Hash); r.GetLostMs() > 0 && !lacking[ref.Hash] {
				found = append(found, r.GetFile())
			}
		}
		return nil
	})
	if err != nil || len(found) == 0 {
		return err
	}
	j.s.log.Info().Int("files", len(found)).Msg("lost files are back")
	if err := j.apply(ctx, &v1.Command{Op: &v1.Command_AddFiles{AddFiles: &v1.AddFiles{Files: found}}}); err != nil {
		return err
	}
	return j.s.store.View(func(v *store.View) error {
		for _, job := range v.Jobs() {
			j.s.dispatch.Changed(job.GetId()) // several may have waited for the same file
		}
		return nil
	})
}

func (j *janitor) apply(ctx context.Context, cmd *v1.Command) error {
	cmd.TimeMs = clock.Milli(time.Now())
	results, err := telling{j.s.store, j.s.dispatch.Changed}.Apply(ctx, cmd)
	if err != nil {
		return err
	}
	return results[0].Err
}
