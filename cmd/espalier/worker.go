package main

import (
	"time"

	"github.com/spf13/cobra"

	"github.com/espalier-ml/espalier/job"
	"github.com/espalier-ml/espalier/worker"
)

func newWorker() *cobra.Command {
	o := &workerOptions{}
	cmd := &cobra.Command{
		Use:   "worker --server ADDR",
		Short: "Run a worker: trains, prunes and measures for a cluster",
		Long: `Takes tasks from a cluster until SIGTERM or Ctrl-C; then it finishes what ends within
--drain-timeout and hands back the rest. One worker of a machine measures latency on it.`,
		Example: `  espalier worker --server 10.0.0.5:8470 --device pi4 --measure-only
  espalier worker --slots 4 --no-measure`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return o.run(cmd) },
	}
	f := cmd.Flags()
	f.StringVar(&o.name, "name", "", "this worker's name, unique in the cluster (default: the host's with a number)")
	f.IntVar(&o.slots, "slots", 0, "tasks at once (default: one for each core)")
	f.IntVar(&o.threads, "threads", 0, "threads of each task (default 1)")
	f.StringVar(&o.device, "device", "", "class of hardware that this machine stands for (default: the host's name)")
	f.StringArrayVar(&o.labels, "label", nil, "key=value for people, may be repeated")
	f.BoolVar(&o.measureOnly, "measure-only", false, "measure latency, train nothing")
	f.BoolVar(&o.noMeasure, "no-measure", false, "train, measure nothing")
	f.BoolVar(&o.once, "once", false, "end after the first task")
	f.DurationVar(&o.drain, "drain-timeout", 30*time.Second, "on SIGTERM, finish what ends within this time")
	f.StringVar(&o.cacheDir, "cache", "", "folder for data sets and models (default: in the user's cache folder)")
	f.StringVar(&o.cacheSize, "cache-size", "4GB", "most bytes of it")
	f.StringVar(&o.hostLock, "host-lock", "", "file that the workers of a machine share, so that measurements are undisturbed; in containers on a volume of theirs (default "+worker.DefaultHostLock()+")")
	o.cluster.addAddress(cmd)
	o.log.add(cmd, "info")
	return cmd
}

type workerOptions struct {
	cluster                      clusterFlags
	name, device, cacheDir       string
	cacheSize, hostLock          string
	slots, threads               int
	labels                       []string
	measureOnly, noMeasure, once bool
	drain                        time.Duration
	log                          logFlags
}

func (o *workerOptions) run(cmd *cobra.Command) error {
	logger, err := o.log.logger(cmd.ErrOrStderr())
	if err != nil {
		return err
	}
	server, err := o.cluster.config()
	if err != nil {
		return err
	}
	labels, err := parseLabels(o.labels)
	if err != nil {
		return err
	}
	bytes, err := job.ParseSize(o.cacheSize)
	if err != nil {
		return usagef("--cache-size: %v", err)
	}
	w, err := worker.New(worker.Config{
		Server: server, Name: o.name, Slots: o.slots, Threads: o.threads, Device: o.device, Labels: labels,
		MeasureOnly: o.measureOnly, NoMeasure: o.noMeasure, Once: o.once, DrainTimeout: o.drain,
		CacheDir: o.cacheDir, CacheBytes: bytes, HostLock: o.hostLock, Version: version, Logger: logger,
	})
	if err != nil {
		return err
	}
	return w.Run(cmd.Context())
}
