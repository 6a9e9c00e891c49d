package backup

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/espalier-ml/espalier/coordinator/ctxio"
	"github.com/espalier-ml/espalier/coordinator/files"
	"github.com/espalier-ml/espalier/coordinator/store"
)

// Folders of a replica, under its data folder.
const (
	raftDir  = "raft"
	filesDir = "files"
	// unfinishedDir holds a restore until it is whole.
	unfinishedDir = "restore-unfinished"
)

// Unfinished tells, as an ErrUnfinished, that a restore into the data folder did not come to its end.
func Unfinished(dir string) error {
	if _, err := os.Stat(filepath.Join(dir, unfinishedDir)); err == nil {
		return fmt.Errorf("%w: folder %s: run the restore again, or remove the folder", ErrUnfinished, dir)
	}
	return nil
}

// Summary is a backup that was read whole.
type Summary struct {
	Contents
	// Applied is the last log index that the records include.
	Applied uint64 `json:"applied"`
	Jobs    int    `json:"jobs"`
	// Lacking are files that the records name and the backup does not hold.
	Lacking []File `json:"lacking,omitempty"`
	// Replica is the id of the replica restored.
	Replica string `json:"replica,omitempty"`
}

// Verify reads a whole backup, checks records and files, and says what it holds. Errors: those of Read, or the disk's:
// the records are unpacked to a temporary folder.
func Verify(ctx context.Context, r io.Reader) (s Summary, err error) {
	tmp, err := os.MkdirTemp("", "espalier-verify-*")
	if err != nil {
		return s, fmt.Errorf("verify backup: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(tmp)) }()
	return take(ctx, r, tmp, func(_ File, r io.Reader) error {
		_, err := io.Copy(io.Discard, r)
		return err
	})
}

// Restore makes, in an absent or empty folder, the data folder of a replica that begins a new cluster with what a backup
// holds. id names the replica, empty is a random name. Start it as the first of a cluster; others join it anew. If
// it fails, or the process dies, the folder is left without a replica, and can be restored into again. Errors: those of
// Read, ErrNotEmpty, store.ErrConfig, store.ErrFull, files.ErrFull, or ctx's.
func Restore(ctx context.Context, dir, id string, r io.Reader) (s Summary, err error) {
	work := filepath.Join(dir, unfinishedDir)
	if err := prepare(dir, work); err != nil {
		return s, fmt.Errorf("restore: %w", err)
	}
	done := false
	defer func() {
		if !done {
			err = errors.Join(err, os.RemoveAll(work))
		}
	}()
	kept, err := files.Open(files.Config{Dir: filepath.Join(work, filesDir)})
	if err != nil {
		return s, fmt.Errorf("restore: %w", err)
	}
	s, err = take(ctx, r, work, func(f File, r io.Reader) error {
		_, err := kept.Append(ctx, files.Ref{Hash: f.Hash, SizeBytes: f.SizeBytes}, 0, r)
		return err
	})
	if err != nil {
		return s, err
	}
	records, err := os.Open(filepath.Join(work, recordsName))
	if err != nil {
		return s, fmt.Errorf("restore: %w", err)
	}
	s.Replica, err = store.Restore(ctx, filepath.Join(work, raftDir), id, records)
	if err = errors.Join(err, records.Close(), os.Remove(records.Name())); err != nil {
		return s, err
	}
	done = true
	if err := publish(dir, work); err != nil {
		return s, fmt.Errorf("restore: %w", err)
	}
	return s, nil
}

// prepare makes sure that the folder is empty, but for what an unfinished restore left of itself.
func prepare(dir, work string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	if Unfinished(dir) != nil {
		for _, d := range []string{raftDir, filesDir, unfinishedDir} {
			if err := os.RemoveAll(filepath.Join(dir, d)); err != nil {
				return err
			}
		}
	}
	names, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, n := range names {
		if n.Name() != "lost+found" { // of a file system of its own
			return fmt.Errorf("%w: %s holds %s; a restore needs a new one", ErrNotEmpty, dir, n.Name())
		}
	}
	return os.Mkdir(work, 0o700)
}

// publish moves the parts to their places. A server does not start while the working folder is there.
func publish(dir, work string) error {
	for _, d := range []string{filesDir, raftDir} {
		if err := os.Rename(filepath.Join(work, d), filepath.Join(dir, d)); err != nil {
			return err
		}
	}
	if err := syncDir(dir); err != nil {
		return err
	}
	if err := os.Remove(work); err != nil {
		return err
	}
	return syncDir(dir)
}

func syncDir(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// take reads a backup; its records are left at dir/records, verified.
func take(ctx context.Context, r io.Reader, dir string, file func(File, io.Reader) error) (s Summary, err error) {
	records := filepath.Join(dir, recordsName)
	held := map[string]bool{}
	s.Contents, err = Read(ctxio.Reader(ctx, r), Visitor{
		Records: func(r io.Reader) error { return spool(records, r) },
		File: func(f File, r io.Reader) error {
			held[f.Hash] = true
			return file(f, r)
		},
	})
	if err != nil {
		return s, err
	}
	return s, s.look(records, held)
}

func spool(path string, r io.Reader) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, r)
	return errors.Join(err, f.Close())
}

// look verifies the records and compares the files that they name with those held.
func (s *Summary) look(records string, held map[string]bool) (err error) {
	f, err := os.Open(records)
	if err != nil {
		return err
	}
	defer f.Close()
	b, err := store.OpenBackup(f, records+".db")
	if errors.Is(err, store.ErrCorrupt) {
		return fmt.Errorf("%w: the records: %w", ErrDamaged, err)
	}
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.Close()) }()
	return b.View(func(v *store.View) error {
		s.Applied, s.Jobs = v.AppliedIndex(), len(v.Jobs())
		for _, f := range Named(v) {
			if !held[f.Hash] {
				s.Lacking = append(s.Lacking, f)
			}
		}
		return nil
	})
}

// Named lists the files that the records name and that were not dropped.
func Named(v *store.View) (out []File) {
	for _, r := range v.Files("", 0) {
		if r.GetDroppedMs() == 0 {
			out = append(out, File{r.GetFile().GetHash(), r.GetFile().GetSizeBytes()})
		}
	}
	return out
}
