package coordinator

import (
	"sync"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/espalier-ml/espalier/coordinator/files"
)

// fileStats counts what became of this replica's files.
type fileStats struct {
	mu                            sync.Mutex
	scrubs, damaged, got, missing int
	bytes                         int64
}

var _ prometheus.Collector = (*fileStats)(nil)

var (
	descScrubs   = prometheus.NewDesc("espalier_file_scrubs_total", "Times that all files of this replica were read and compared with their hashes.", nil, nil)
	descScrubbed = prometheus.NewDesc("espalier_file_scrubbed_bytes_total", "Bytes of files that were read and compared with their hashes.", nil, nil)
	descDamaged  = prometheus.NewDesc("espalier_files_damaged_total", "Files that did not match their hash and were set aside.", nil, nil)
	descFetched  = prometheus.NewDesc("espalier_files_fetched_total", "Files that were missing here and came from another replica.", nil, nil)
	descMissing  = prometheus.NewDesc("espalier_files_missing", "Recorded files that are not on this replica, as of the last look.", nil, nil)
)

// Describe implements prometheus.Collector.
func (s *fileStats) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{descScrubs, descScrubbed, descDamaged, descFetched, descMissing} {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (s *fileStats) Collect(ch chan<- prometheus.Metric) {
	s.mu.Lock()
	defer s.mu.Unlock()
	count := func(d *prometheus.Desc, n float64) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, n)
	}
	count(descScrubs, float64(s.scrubs))
	count(descScrubbed, float64(s.bytes))
	count(descDamaged, float64(s.damaged))
	count(descFetched, float64(s.got))
	ch <- prometheus.MustNewConstMetric(descMissing, prometheus.GaugeValue, float64(s.missing))
}

func (s *fileStats) scrubbed(found files.Scrubbed) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.scrubs++
	s.bytes += found.Bytes
	s.damaged += len(found.Damaged)
}

func (s *fileStats) fetched(n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.got += n
}

func (s *fileStats) looked(found looked) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.missing = found.missing
}
