package e2e

import (
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"google.golang.org/protobuf/proto"

	espalierv1 "github.com/espalier-ml/espalier/proto/espalier/v1"
	"github.com/espalier-ml/espalier/proto/subject"
)

// TestDuplicatedAndLateReports listens to all reports and sends each of them
// again: at once, later, and when all is over.
func TestDuplicatedAndLateReports(t *testing.T) {
	c := newCluster(t)
	nc, err := nats.Connect(c.role.Broker)
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	var mu sync.Mutex
	var heard [][]byte
	accepted := map[string]int{} // answers to copies
	var wg sync.WaitGroup
	again := func(data []byte) {
		var req espalierv1.ReportRequest
		if err := proto.Unmarshal(data, &req); err != nil {
			t.Error(err)
			return
		}
		msg, err := nc.Request(subject.Report, data, 5*time.Second)
		if err != nil {
			return // the connection ended with the test
		}
		var reply espalierv1.ReportReply
		if err := proto.Unmarshal(msg.Data, &reply); err != nil {
			t.Error(err)
			return
		}
		if reply.GetStatus() == espalierv1.ReportReply_STATUS_ACCEPTED {
			mu.Lock()
			accepted[req.GetTask()]++
			mu.Unlock()
		}
	}
	known := map[string]bool{}
	_, err = nc.Subscribe(subject.Report, func(m *nats.Msg) {
		mu.Lock()
		defer mu.Unlock()
		if known[string(m.Data)] {
			return
		}
		known[string(m.Data)] = true
		heard = append(heard, m.Data)
		for _, delay := range []time.Duration{0, 0, 100 * time.Millisecond, time.Second} {
			wg.Go(func() {
				time.Sleep(delay)
				again(m.Data)
			})
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	c.worker(measuring("m"))
	c.worker(training("a"))
	c.submit()
	c.did("every report sent four more times")
	all := c.finish()
	wg.Wait()
	mu.Lock()
	if len(heard) < 2*trials {
		t.Errorf("heard %d reports", len(heard))
	}
	late := heard
	for task, n := range accepted {
		if n > 1 {
			t.Errorf("%s was accepted %d times", task, n)
		}
	}
	clear(accepted)
	mu.Unlock()
	for _, data := range late {
		again(data)
	}
	if len(accepted) > 0 {
		t.Errorf("accepted after the end: %v", accepted)
	}
	c.did("and again after the end")
	for i, tr := range c.finish() {
		if !proto.Equal(tr, all[i]) {
			t.Errorf("trial %d has changed", tr.GetNumber())
		}
	}
}
