package coordinator

import (
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/espalier-ml/espalier/coordinator/dispatch"
	"github.com/espalier-ml/espalier/coordinator/files"
)

// partsMetrics reads what broker, dispatch and files have counted when it is asked.
type partsMetrics struct{ s *Server }

// diskUsage is what the files take up. Walking over them takes a while when there are many: what was found stays good for
// usageFor.
type diskUsage struct {
	mu    sync.Mutex
	usage files.Usage
	at    time.Time
}

const usageFor = 30 * time.Second

func desc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc(name, help, labels, nil)
}

var (
	descBuild    = desc("espalier_build_info", "1; which build and replica this is.", "version", "replica")
	descClients  = desc("espalier_broker_clients", "Connections to this replica's broker, its own included.")
	descRoutes   = desc("espalier_broker_routes", "Other brokers that this one is connected to.")
	descMessages = desc("espalier_broker_messages_total", "Messages through this replica's broker.", "direction")
	descBytes    = desc("espalier_broker_bytes_total", "Bytes of those messages.", "direction")
	descSlow     = desc("espalier_broker_slow_consumers_total", "Connections that were dropped since they read too slowly.")
	descLeases   = desc("espalier_leases", "Leases that stand. Known to the leader only.")
	descWaiting  = desc("espalier_claims_waiting", "Claims that wait for something to do. Known to the leader only.")
	descLeased   = desc("espalier_leases_total", "Leases that this process granted.")
	descExpired  = desc("espalier_leases_expired_total", "Leases that ended without a heartbeat.")
	descReports  = desc("espalier_reports_total", "Reports that this process took, by what they brought and what became of them.", "outcome", "status")
	descFiles    = desc("espalier_files", "Files on this replica.")
	descFileSize = desc("espalier_files_bytes", "Bytes of files on this replica, by kind.", "kind")
	descFree     = desc("espalier_files_free_bytes", "Bytes that their disk has left; -1 where that is not known.")
)

// Describe implements prometheus.Collector.
func (partsMetrics) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{
		descBuild, descClients, descRoutes, descMessages, descBytes, descSlow, descLeases, descWaiting, descLeased, descExpired,
		descReports, descFiles, descFileSize, descFree,
	} {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (m partsMetrics) Collect(ch chan<- prometheus.Metric) {
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	count := func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, v, labels...)
	}
	gauge(descBuild, 1, m.s.cfg.Version, m.s.store.ID())
	if b, err := m.s.broker.Stats(); err == nil { // else it is closed
		gauge(descClients, float64(b.Clients))
		gauge(descRoutes, float64(b.Routes))
		count(descMessages, float64(b.InMessages), "in")
		count(descMessages, float64(b.OutMessages), "out")
		count(descBytes, float64(b.InBytes), "in")
		count(descBytes, float64(b.OutBytes), "out")
		count(descSlow, float64(b.SlowConsumers))
	}
	d := m.s.dispatch.Stats()
	gauge(descLeases, float64(d.Leases))
	gauge(descWaiting, float64(d.Waiting))
	count(descLeased, float64(d.Leased))
	count(descExpired, float64(d.Expired))
	for i, outcome := range dispatch.Outcomes {
		for k, status := range dispatch.Statuses {
			count(descReports, float64(d.Reports[i][k]), outcome, status)
		}
	}
	u, err := m.s.disk.of(m.s.files)
	if err != nil {
		ch <- prometheus.NewInvalidMetric(descFiles, err)
		return
	}
	gauge(descFiles, float64(u.Files))
	gauge(descFileSize, float64(u.Bytes), "complete")
	gauge(descFileSize, float64(u.PartialBytes), "partial")
	gauge(descFileSize, float64(u.DamagedBytes), "damaged")
	gauge(descFree, float64(u.FreeBytes))
}

// of counts a store's files, or gives what was counted a moment ago.
func (d *diskUsage) of(store *files.Store) (files.Usage, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.at.IsZero() && time.Since(d.at) < usageFor {
		return d.usage, nil
	}
	u, err := store.Usage()
	if err != nil {
		return files.Usage{}, err
	}
	d.usage, d.at = u, time.Now()
	return u, nil
}

// collectors are the metrics of all parts but the API.
func (s *Server) collectors() []prometheus.Collector {
	return append(s.store.Metrics(), partsMetrics{s}, &s.janitor.stats)
}
