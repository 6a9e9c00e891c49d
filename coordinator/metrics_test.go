package coordinator_test

import (
	"bufio"
	"context"
	"io"
	"maps"
	"net/http"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	v1 "github.com/espalier-ml/espalier/proto/espalier/v1"
)

// family is what a scrape or the documentation says of a metric.
type family struct{ kind, labels string }

// scrape reads the metrics of this project.
func scrape(t *testing.T, address string) (families map[string]family, text string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+address+"/metrics", http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	transport := &http.Transport{DisableKeepAlives: true}
	resp, err := transport.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("%d, %v\n%s", resp.StatusCode, err, body)
	}
	families = map[string]family{}
	label := regexp.MustCompile(`([a-z_]+)="`)
	for line := range strings.Lines(string(body)) {
		line = strings.TrimSpace(line)
		if words := strings.Fields(line); strings.HasPrefix(line, "# TYPE espalier_") {
			families[words[2]] = family{kind: words[3]}
			continue
		}
		series, _, _ := strings.Cut(line, " ")
		name, labels, _ := strings.Cut(series, "{")
		for _, suffix := range []string{"_bucket", "_sum", "_count"} {
			if base := strings.TrimSuffix(name, suffix); base != name && families[base].kind == "histogram" {
				name = base
			}
		}
		f, known := families[name]
		if !known {
			continue
		}
		var names []string
		for _, m := range label.FindAllStringSubmatch(labels, -1) {
			if m[1] != "le" {
				names = append(names, m[1])
			}
		}
		if len(names) > 0 {
			f.labels = strings.Join(slices.Sorted(slices.Values(names)), " ")
		}
		families[name] = f
	}
	return families, string(body)
}

// documented reads the table of docs/metrics.md, and the names that occur elsewhere in it.
func documented(t *testing.T) (table map[string]family, mentioned []string) {
	t.Helper()
	f, err := os.Open("../docs/metrics.md")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	table = map[string]family{}
	name := regexp.MustCompile(`espalier_[a-z_]+`)
	for s := bufio.NewScanner(f); s.Scan(); {
		cells := strings.Split(s.Text(), "|")
		if len(cells) != 6 || !strings.HasPrefix(cells[1], " `espalier_") {
			mentioned = append(mentioned, name.FindAllString(s.Text(), -1)...)
			continue
		}
		labels := strings.FieldsFunc(cells[3], func(r rune) bool { return r == ',' || r == ' ' })
		slices.Sort(labels)
		table[strings.Trim(cells[1], " `")] = family{strings.TrimSpace(cells[2]), strings.Join(labels, " ")}
	}
	return table, mentioned
}

// TestMetrics holds docs/metrics.md against a scrape, and sees series of a job end with the job.
func TestMetrics(t *testing.T) {
	s := start(t, t.TempDir())
	defer stop(t, s)
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	u := dial(s.Address())
	defer u.transport.CloseIdleConnections()
	dismiss := crew(t, s, u, 2)
	job := submit(ctx, t, u, 100_000)
	eventually(t, "a trial", func() bool {
		got, err := u.jobs.Get(ctx, &v1.GetRequest{Job: job.GetId()})
		return err == nil && got.GetStatus().GetJob().GetCompleted() > 0
	})
	dismiss()

	got, text := scrape(t, s.Address())
	want, mentioned := documented(t)
	for _, name := range slices.Sorted(maps.Keys(got)) {
		if want[name] != got[name] {
			t.Errorf("%s is %+v, docs/metrics.md says %+v", name, got[name], want[name])
		}
	}
	for name := range want {
		if _, ok := got[name]; !ok {
			t.Errorf("docs/metrics.md lists %s, a scrape does not", name)
		}
	}
	for _, name := range mentioned {
		if _, ok := want[strings.TrimSuffix(name, "_bucket")]; !ok {
			t.Errorf("docs/metrics.md mentions %s, its table does not list it", name)
		}
	}
	if !strings.Contains(text, job.GetId()) {
		t.Error("a live job has no series")
	}
	for _, line := range []string{
		"espalier_leader 1", "espalier_ready 1", `espalier_raft_state{state="leader"} 1`, `espalier_jobs{state="searching"} 1`,
		`espalier_reports_total{outcome="baseline",status="accepted"} 1`, `espalier_api_requests_total{code="ok",method="JobService/Submit"} 1`,
		`espalier_hypervolume{device="`, `espalier_raft_members{vote="yes"} 1`, `espalier_build_info{replica="`,
	} {
		if !strings.Contains(text, "\n"+line) {
			t.Errorf("no line begins with %s", line)
		}
	}
	if strings.Contains(text, "espalier_raft_log_write_seconds_count 0\n") || strings.Contains(text, "espalier_raft_commit_seconds_count 0\n") {
		t.Error("nothing was timed")
	}
	if _, err := u.jobs.Cancel(ctx, &v1.CancelRequest{Job: job.GetId()}); err != nil {
		t.Fatal(err)
	}
	if _, text = scrape(t, s.Address()); strings.Contains(text, job.GetId()) {
		t.Error("an ended job still has series")
	}
}
