package store

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"path/filepath"
	"sync"

	"github.com/hashicorp/raft"
)

// keyCluster holds the id of the cluster that the folder belongs to.
var keyCluster = []byte("espalier-cluster")

// keyCurrentTerm is where Raft keeps its term.
var keyCurrentTerm = []byte("CurrentTerm")

// newID is a random name.
func newID() string {
	b := make([]byte, 8)
	_, _ = rand.Read(b) // never fails
	return hex.EncodeToString(b)
}

// replicaID returns the folder's id, giving it one if it has none.
func (s *logStore) replicaID(want string) (string, error) {
	have, err := s.Get(keyReplica)
	switch {
	case errors.Is(err, errStableNotFound):
		if want == "" {
			want = newID()
		}
		return want, s.put(keyReplica, []byte(want))
	case err != nil:
		return "", err
	case want != "" && want != string(have):
		return "", fmt.Errorf("%w: ID is %q, but folder %s belongs to replica %q", ErrConfig, want, filepath.Dir(s.path), have)
	}
	return string(have), nil
}

// identity says which cluster and which replica this is, and whether another one belongs to the same cluster: after a
// restore or a recovery, replicas of the cluster as it was before must not mix with it.
type identity struct {
	replica string
	logs    *logStore

	mu sync.Mutex
	// cluster is empty for a folder that is older than ids of clusters, and for a fresh one.
	cluster string
	// fresh: the folder has never been part of a cluster, and takes the id of the first that calls.
	fresh bool
}

// openIdentity reads the folder's cluster, or gives it one if it begins a cluster.
func openIdentity(logs *logStore, snaps raft.SnapshotStore, replica string, bootstrap bool) (*identity, error) {
	id := &identity{replica: replica, logs: logs}
	have, err := logs.Get(keyCluster)
	if err == nil {
		id.cluster = string(have)
		return id, nil
	}
	if !errors.Is(err, errStableNotFound) {
		return nil, err
	}
	old, err := raft.HasExistingState(logs, logs, snaps)
	if err != nil {
		return nil, fmt.Errorf("read the log's state: %w", err)
	}
	id.fresh = !old
	if bootstrap && !old {
		return id, id.take(newID())
	}
	return id, nil
}

// take keeps the cluster's id for good.
func (id *identity) take(cluster string) error {
	if err := id.logs.put(keyCluster, []byte(cluster)); err != nil {
		return err
	}
	id.cluster, id.fresh = cluster, false
	return nil
}

// id is the cluster's, empty if there is none.
func (id *identity) id() string {
	id.mu.Lock()
	defer id.mu.Unlock()
	return id.cluster
}

// admit refuses a replica of another cluster, by ErrOtherCluster. A fresh folder becomes part of the one that calls first.
func (id *identity) admit(cluster string) error {
	id.mu.Lock()
	defer id.mu.Unlock()
	if cluster != "" && id.untouched() {
		return id.take(cluster)
	}
	if cluster != id.cluster {
		return fmt.Errorf("%w: replica %s is of cluster %q, not of %q", ErrOtherCluster, id.replica, id.cluster, cluster)
	}
	return nil
}

// untouched tells whether the folder is still fresh: no cluster has sent it anything. The caller holds mu.
func (id *identity) untouched() bool {
	if !id.fresh {
		return false
	}
	last, _ := id.logs.LastIndex()               // from memory, no error
	term, _ := id.logs.GetUint64(keyCurrentTerm) // 0 if there is none
	id.fresh = last == 0 && term == 0
	return id.fresh
}

// Cluster is the id of the cluster that this replica belongs to: random, made when the cluster began, and made anew by
// Restore and Recover. Empty before a fresh replica was added, and in a cluster that began before clusters had ids.
func (s *Store) Cluster() string { return s.identity.id() }

// Fresh tells whether the folder has not been part of a cluster yet.
func (s *Store) Fresh() bool {
	s.identity.mu.Lock()
	defer s.identity.mu.Unlock()
	return s.identity.untouched()
}
