package store

import (
	"errors"
	"os"
	"path/filepath"
)

// settle makes what can be read of a file what is on disk. After a crash of the process
// alone the kernel still shows writes that were never synced, and after a failed fsync it
// shows writes that never reached the disk and which it will not try again: neither may
// count as kept. So what is left to write is written, and the kernel's copy thrown away.
func settle(path string) error {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	err = f.Sync()
	if err == nil {
		err = forgetCached(f)
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	return syncDir(filepath.Dir(path))
}

// syncDir makes the names in a folder last.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
