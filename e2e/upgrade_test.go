package e2e

import (
	"os"
	"testing"
	"time"

	espalierv1 "github.com/espalier-ml/espalier/proto/espalier/v1"
)

// olderEnv names this package's test binary as an older build made it.
const olderEnv = "ESPALIER_E2E_OLDER"

// TestUpgrade: servers and workers of an older build become ones of this build, one after the other, while a search runs. New
// leads old and old leads new meanwhile, nobody stops, and in the end all replicas hold the same.
func TestUpgrade(t *testing.T) {
	older := os.Getenv(olderEnv)
	if older == "" {
		t.Skip("SKIPPED: " + olderEnv + " names no older build; scripts/test-upgrade makes one")
	}
	c := newReplicas(t, false, func(_ int, r *serverRole) { r.Program, r.Version = older, "older" })
	c.crewOf(build{Program: older})
	c.trials = 20
	c.submit()
	c.progress()
	for i, leads := range []int{0, 2, 1} {
		c.servers[i].terminate()
		c.roles[i].Program, c.roles[i].Version = "", "newer"
		c.servers[i] = spawn(t, "server "+c.roles[i].ID, "server", c.roles[i])
		c.until("the server to be ready", func() bool { return c.ready(i) })
		c.lead(leads)
		c.progress()
		c.did("%s upgraded, %s (%s) led", c.roles[i].ID, c.roles[leads].ID, c.roles[leads].Version)
	}
	c.workers["x"].terminate()
	c.hire(training("x"))
	c.finish()
	for _, s := range c.servers {
		if s.ended() {
			t.Errorf("%s has stopped:\n%s", s.name, s.output())
		}
	}
	c.until("all versions to be told", func() bool {
		m := c.members()
		return len(m) == 3 && m["a"] == "newer" && m["b"] == "newer" && m["c"] == "newer"
	})
	c.until("all replicas to hold the same", func() bool {
		var digests [3]string
		for i := range c.roles {
			digests[i] = c.digest(i)
		}
		return digests[0] != "" && digests[0] == digests[1] && digests[1] == digests[2]
	})
}

// progress waits for a trial more; on a fast machine the search may have ended, then for the first of another one.
func (c *replicas) progress() {
	c.t.Helper()
	var s *espalierv1.JobStatus
	c.until("the job's status", func() bool { s = c.status(); return s != nil })
	before := s.GetJob().GetCompleted()
	if before == c.length() {
		c.finish()
		c.submit()
		before = 0
	}
	c.until("a trial more", func() bool { return c.status().GetJob().GetCompleted() > before })
}

// digest is of the records that a server holds; empty while it does not say.
func (c *replicas) digest(i int) string {
	c.t.Helper()
	only := c.dial(5*time.Second, c.addresses[i])
	defer only.Close()
	res, err := only.Cluster.Replicas(c.t.Context(), &espalierv1.ReplicasRequest{Digest: true})
	if err != nil {
		return ""
	}
	return res.GetDigest()
}
