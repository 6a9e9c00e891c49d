package cache

import (
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/espalier-ml/espalier/client"
)

// scan takes in what an earlier process left: files in the order of their last
// use, parts of downloads as they are. Anything else in the folder goes, and so
// does what exceeds the bound.
func (c *Cache) scan() error {
	type found struct {
		hash string
		info fs.FileInfo
	}
	var all []found
	err := filepath.WalkDir(filepath.Join(c.cfg.Dir, "files"), func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		hash := d.Name()
		if client.CheckHash(hash) != nil || !info.Mode().IsRegular() || path != c.path(hash) {
			return os.Remove(path)
		}
		all = append(all, found{hash, info})
		return nil
	})
	if err != nil {
		return err
	}
	slices.SortFunc(all, func(a, b found) int { return a.info.ModTime().Compare(b.info.ModTime()) })
	for _, f := range all {
		c.clock++
		c.entries[f.hash] = &entry{hash: f.hash, size: f.info.Size(), used: c.clock}
		c.bytes += f.info.Size()
	}
	for c.bytes > c.cfg.MaxBytes && c.evict() {
	}
	return c.trimParts()
}

// trimParts keeps the newest parts of downloads that were broken off, as long as
// they are within half the bound.
func (c *Cache) trimParts() error {
	dir := filepath.Join(c.cfg.Dir, "parts")
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	var infos []fs.FileInfo
	for _, e := range entries {
		info, err := e.Info()
		if err != nil {
			return err
		}
		infos = append(infos, info)
	}
	slices.SortFunc(infos, func(a, b fs.FileInfo) int { return b.ModTime().Compare(a.ModTime()) })
	left := c.cfg.MaxBytes / 2
	for _, info := range infos {
		if left -= info.Size(); left < 0 {
			if err := os.RemoveAll(filepath.Join(dir, info.Name())); err != nil {
				return err
			}
		}
	}
	return nil
}
