package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"

	"github.com/espalier-ml/espalier/client"
	"github.com/espalier-ml/espalier/coordinator/backup"
	"github.com/espalier-ml/espalier/coordinator/store"
	"github.com/espalier-ml/espalier/job"
	espalierv1 "github.com/espalier-ml/espalier/proto/espalier/v1"
)

func newClusterBackup() *cobra.Command {
	var cluster clusterFlags
	var noFiles, verify, asJSON bool
	cmd := &cobra.Command{
		Use:   "backup FILE",
		Short: "Write a copy of the records and of the files that they name to FILE, or verify one",
		Long: `Writes jobs, trials, fronts and devices, as of one moment, and with them the data sets, models and
checkpoints that they name. The cluster goes on meanwhile. FILE is written whole or not at all.
It holds all that was acknowledged before the backup began. Restore it with "espalier cluster restore".`,
		Example: `  espalier cluster backup espalier-monday.tar
  espalier cluster backup --verify espalier-monday.tar`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if verify {
				if noFiles {
					return usagef("--verify and --no-files: want one of them")
				}
				return verifyBackup(cmd, args[0], asJSON)
			}
			return cluster.with(cmd, func(ctx context.Context, c *client.Client) error {
				s, size, err := makeBackup(ctx, c, args[0], noFiles)
				if err != nil {
					return err
				}
				return showBackup(cmd, args[0], size, s, asJSON)
			})
		},
	}
	cluster.add(cmd)
	cmd.Flags().BoolVar(&noFiles, "no-files", false, "the records alone, without the files that they name")
	cmd.Flags().BoolVar(&verify, "verify", false, "check the backup in FILE instead; asks no server")
	jsonFlag(cmd, &asJSON)
	return cmd
}

func verifyBackup(cmd *cobra.Command, path string, asJSON bool) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return err
	}
	s, err := backup.Verify(cmd.Context(), f)
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return showBackup(cmd, path, st.Size(), s, asJSON)
}

func showBackup(cmd *cobra.Command, path string, size int64, s backup.Summary, asJSON bool) error {
	if asJSON {
		return printJSON(cmd.OutOrStdout(), struct {
			Path      string `json:"path"`
			SizeBytes int64  `json:"size_bytes"`
			backup.Summary
		}{path, size, s})
	}
	_, err := fmt.Fprintf(cmd.OutOrStdout(), "%s: %s, %d jobs up to log index %d, %d files (%s)\n", path, job.FormatSize(size), s.Jobs, s.Applied,
		s.Files, job.FormatSize(s.Bytes))
	return errors.Join(err, showLacking(cmd.OutOrStdout(), s.Lacking))
}

// maxShown bounds lists for people.
const maxShown = 5

// showLacking says which files the records name and the backup does not hold.
func showLacking(w io.Writer, lacking []backup.File) error {
	if len(lacking) == 0 {
		return nil
	}
	var bytes int64
	for _, f := range lacking {
		bytes += f.SizeBytes
	}
	_, err := fmt.Fprintf(w, "without %d files (%s) that the records name:\n", len(lacking), job.FormatSize(bytes))
	for i, f := range lacking {
		if i == maxShown {
			_, e := fmt.Fprintf(w, "  and %d more; --json lists all\n", len(lacking)-i)
			return errors.Join(err, e)
		}
		_, e := fmt.Fprintf(w, "  %s %s\n", f.Hash, job.FormatSize(f.SizeBytes))
		err = errors.Join(err, e)
	}
	return err
}

// makeBackup writes records and files to path, whole or not at all. What it needs on the way lies in a folder beside it.
func makeBackup(ctx context.Context, c *client.Client, path string, noFiles bool) (s backup.Summary, size int64, err error) {
	if st, err := os.Stat(path); err == nil && !st.Mode().IsRegular() {
		return s, 0, usagef("%s is no regular file: want the name of a file to write", path)
	}
	work, err := os.MkdirTemp(filepath.Dir(path), ".backup-*")
	if err != nil {
		return s, 0, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(work)) }()
	records := filepath.Join(work, "records")
	if err := fetchRecords(ctx, c, records); err != nil {
		return s, 0, err
	}
	out := filepath.Join(work, "backup")
	if s, err = assemble(ctx, c, records, out, noFiles); err != nil {
		return s, 0, err
	}
	st, err := os.Stat(out)
	if err != nil {
		return s, 0, err
	}
	if err := os.Rename(out, path); err != nil {
		return s, 0, err
	}
	return s, st.Size(), nil
}

// fetchRecords streams the records to path.
func fetchRecords(ctx context.Context, c *client.Client, path string) (err error) {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	stream, err := c.Cluster.Backup(ctx, &espalierv1.BackupRequest{})
	if err != nil {
		return err
	}
	for stream.Receive() {
		if _, err := f.Write(stream.Msg().Data); err != nil {
			return errors.Join(err, stream.Close())
		}
	}
	return errors.Join(stream.Err(), stream.Close())
}

// assemble writes the backup to out, on disk.
func assemble(ctx context.Context, c *client.Client, records, out string, noFiles bool) (s backup.Summary, err error) {
	f, err := os.OpenFile(out, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return s, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	buffered := bufio.NewWriterSize(f, 1<<20)
	s.Head = backup.Head{Format: backup.Format, Version: version, Made: time.Now().UTC().Truncate(time.Second), RecordsOnly: noFiles}
	w, err := backup.NewWriter(buffered, s.Head)
	if err != nil {
		return s, err
	}
	named, err := addRecords(w, records, &s)
	if err != nil {
		return s, err
	}
	if noFiles {
		s.Lacking = named
	} else if err := addFiles(ctx, c, w, filepath.Dir(out), named, &s); err != nil {
		return s, err
	}
	if err := w.Close(); err != nil {
		return s, err
	}
	return s, errors.Join(buffered.Flush(), f.Sync())
}

// addRecords verifies the records and adds them; it returns the files that they name.
func addRecords(w *backup.Writer, path string, s *backup.Summary) (named []backup.File, err error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := store.OpenBackup(f, path+".db")
	if err != nil {
		return nil, err
	}
	err = b.View(func(v *store.View) error {
		s.Applied, s.Jobs, named = v.AppliedIndex(), len(v.Jobs()), backup.Named(v)
		return nil
	})
	if err := errors.Join(err, b.Close()); err != nil {
		return nil, err
	}
	st, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return nil, err
	}
	return named, w.Records(f, st.Size())
}

// addFiles brings the files one by one and adds them. What no replica has any more is noted: a checkpoint may have been
// dropped since.
func addFiles(ctx context.Context, c *client.Client, w *backup.Writer, dir string, named []backup.File, s *backup.Summary) error {
	for _, f := range named {
		err := addFile(ctx, c, w, filepath.Join(dir, "file"), f)
		if connect.CodeOf(err) == connect.CodeNotFound {
			w.Missing(f)
			s.Missing, s.Lacking = append(s.Missing, f), append(s.Lacking, f)
			continue
		}
		if err != nil {
			return err
		}
		s.Files++
		s.Bytes += f.SizeBytes
	}
	return nil
}

func addFile(ctx context.Context, c *client.Client, w *backup.Writer, path string, f backup.File) (err error) {
	if err := c.Download(ctx, &espalierv1.FileRef{Hash: f.Hash, SizeBytes: f.SizeBytes}, path); err != nil {
		return errors.Join(err, ignoreMissing(os.Remove(path+".part")))
	}
	defer func() { err = errors.Join(err, os.Remove(path)) }()
	in, err := os.Open(path)
	if err != nil {
		return err
	}
	defer in.Close()
	return w.File(f, in)
}

func ignoreMissing(err error) error {
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return err
}

func newClusterRestore() *cobra.Command {
	var data, id string
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "restore FILE --data DIR",
		Short: "Make the data folder of a new cluster's first replica from a backup",
		Long: `Writes to DIR, which must be new or empty, a replica that begins a new cluster with all that the backup
in FILE holds. Start it with "espalier server --data DIR --cluster"; the other replicas join with new folders.
Replicas of the cluster that was backed up do not mix with the new one.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if data == "" {
				return usagef("--data is missing: want a new folder for the replica")
			}
			f, err := os.Open(args[0])
			if err != nil {
				return err
			}
			defer f.Close()
			s, err := backup.Restore(cmd.Context(), data, id, bufio.NewReaderSize(f, 1<<20))
			if err != nil {
				return fmt.Errorf("%s: %w", args[0], err)
			}
			if asJSON {
				return printJSON(cmd.OutOrStdout(), s)
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "replica %s in %s: %d jobs up to log index %d, %d files (%s)\n", s.Replica, data, s.Jobs,
				s.Applied, s.Files, job.FormatSize(s.Bytes))
			if err := errors.Join(err, showLacking(cmd.OutOrStdout(), s.Lacking)); err != nil {
				return err
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "next: espalier server --data %s --cluster; then the others with new folders and --join\n", data)
			return err
		},
	}
	cmd.Flags().StringVar(&data, "data", "", "new or empty folder for the replica (required)")
	cmd.Flags().StringVar(&id, "id", "", "name of the replica, for ever (default: made up)")
	jsonFlag(cmd, &asJSON)
	return cmd
}

func newClusterRecover() *cobra.Command {
	var data string
	var yes, asJSON bool
	cmd := &cobra.Command{
		Use:   "recover --data DIR --yes",
		Short: "Go on with one replica when the majority is lost for good",
		Long: `Makes the replica in DIR, whose server must be stopped, the only member of a new cluster, with all records
that it has. It is for a cluster whose majority will not come back: results that only the lost replicas had are
lost. If the lost ones come back after all, they do not mix with the new cluster. Where several replicas are left, take
the one with the highest log index (espalier cluster status, on each). The others join anew, with new folders.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			switch {
			case data == "":
				return usagef("--data is missing: want the folder of a replica")
			case !yes:
				return usagef("--yes is missing: what only the lost replicas had is lost by this; say --yes to go on")
			}
			r, err := store.Recover(store.Config{Dir: filepath.Join(data, "raft")})
			if err != nil {
				return err
			}
			if asJSON {
				return printJSON(cmd.OutOrStdout(), map[string]any{"replica": r.ID, "applied": r.Applied, "members_before": len(r.Was)})
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "replica %s in %s is now a cluster of its own, of %d replicas before; records up to log index %d\n"+
				"next: espalier server --data %s --cluster; then the others with new folders and --join\n", r.ID, data, len(r.Was), r.Applied, data)
			return err
		},
	}
	cmd.Flags().StringVar(&data, "data", "", "folder of the replica (required)")
	cmd.Flags().BoolVar(&yes, "yes", false, "the majority is lost for good")
	jsonFlag(cmd, &asJSON)
	return cmd
}
