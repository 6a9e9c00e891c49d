package api

import (
	"encoding/json"
	"errors"
	"net/http"
	"strings"

	"github.com/espalier-ml/espalier/coordinator/store"
)

// readiness is the answer of /readyz.
type readiness struct {
	Ready   bool   `json:"ready"`
	Reason  string `json:"reason,omitempty"`
	Replica string `json:"replica"`
	Leader  string `json:"leader,omitempty"`
	Behind  uint64 `json:"behind"`
}

// alive answers while the process works; it asks nothing else, so that a replica that waits for others is not restarted.
func alive(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("ok\n")) }

// ready answers whether this replica can serve, and if not, why.
func (s *service) ready(w http.ResponseWriter, _ *http.Request) {
	out := s.readiness()
	w.Header().Set("Content-Type", "application/json")
	if !out.Ready {
		w.WriteHeader(http.StatusServiceUnavailable)
	}
	_ = json.NewEncoder(w).Encode(out) // who asked may have gone
}

func (s *service) readiness() readiness {
	st := s.cfg.Members.Status()
	out := readiness{Replica: st.ID, Leader: st.Leader}
	var err error
	out.Behind, err = s.cfg.Members.Ready()
	switch {
	case s.stop.Err() != nil:
		out.Reason = "shutting down"
	case errors.Is(err, store.ErrFailed):
		out.Reason = "the store has stopped: " + err.Error()
	case err != nil:
		out.Reason = strings.TrimPrefix(err.Error(), store.ErrNotReady.Error()+": ")
	case !s.cfg.Store.IsLeader() && s.cfg.Cluster.Leader() == "":
		out.Reason = "the leader has not told its address yet"
	default:
		out.Ready = true
	}
	return out
}
